"""A line over the picture: what is wrong as long as it is, or what was just done for a while."""

from PyQt6.QtCore import Qt, QTimer
from PyQt6.QtWidgets import QFrame, QHBoxLayout, QLabel, QSizePolicy, QToolButton

_NOTE_MS = 8000


class Banner(QFrame):
    """Problems go before notes. A problem that was closed stays closed until another one comes."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("banner")
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.text.setTextFormat(Qt.TextFormat.PlainText)
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.text.setAccessibleName(self.tr("Message"))
        self.text.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self.dismiss = QToolButton()
        self.dismiss.setText("✕")
        self.dismiss.setAccessibleName(self.tr("Close the message"))
        self.dismiss.setToolTip(self.tr("Close the message"))
        self.dismiss.clicked.connect(self._dismissed)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(12, 6, 6, 6)
        layout.addWidget(self.text, 1)
        layout.addWidget(self.dismiss, 0, Qt.AlignmentFlag.AlignTop)
        self._problems: tuple[str, ...] = ()
        self._closed: tuple[str, ...] = ()
        self._note, self._note_is_problem = "", False
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._forget_note)
        self._show()

    def show_problems(self, problems: tuple[str, ...]) -> None:
        """What is wrong now."""
        if problems != self._problems:
            self._problems = problems
            self._show()

    def tell(self, note: str, *, wrong: bool = False) -> None:
        """What was just done, or what went wrong with it."""
        self._note, self._note_is_problem = note, wrong
        self._timer.start(_NOTE_MS)
        self._show()

    def _forget_note(self) -> None:
        self._note = ""
        self._show()

    def _dismissed(self) -> None:
        self._closed = self._problems
        self._forget_note()

    def _show(self) -> None:
        problems = () if self._problems == self._closed else self._problems
        lines = [*problems, *([self._note] if self._note else [])]
        warns = bool(problems) or self._note_is_problem
        self.text.setText("\n".join(line[:1].upper() + line[1:] for line in lines))
        self.setProperty("kind", "problem" if warns else "note")
        style = self.style()
        assert style is not None
        for widget in (self, self.text, self.dismiss):
            style.unpolish(widget)
            style.polish(widget)
        self.setVisible(bool(lines))
