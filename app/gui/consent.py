"""What a person is asked before the first start."""

from PyQt6.QtCore import Qt
from PyQt6.QtWidgets import QDialog, QDialogButtonBox, QLabel, QVBoxLayout, QWidget

_WIDTH_PX = 480


class ConsentDialog(QDialog):
    """Says what the program is for and what it is not. Closing it, or Escape, is a no."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("RIGID Live")
        self.setFixedWidth(_WIDTH_PX)
        heading = QLabel(self.tr("Before you start"))
        heading.setObjectName("heading")
        self.text = QLabel(self._note())
        self.text.setWordWrap(True)
        self.text.setTextFormat(Qt.TextFormat.RichText)
        self.text.setAccessibleName(self.tr("Responsible use"))
        buttons = QDialogButtonBox()
        self.agree = buttons.addButton(self.tr("I agree"), QDialogButtonBox.ButtonRole.AcceptRole)
        self.quit = buttons.addButton(self.tr("Quit"), QDialogButtonBox.ButtonRole.RejectRole)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        column = QVBoxLayout(self)
        column.setContentsMargins(24, 20, 24, 20)
        column.setSpacing(14)
        for widget in (heading, self.text, buttons):
            column.addWidget(widget)

    def _note(self) -> str:
        points = (
            self.tr("Edit your own face, or that of someone who agreed to it."),
            self.tr("Tell the people you talk to that the picture is edited."),
            self.tr("Do not use it to deceive, to harass, or to pass as somebody else or as another age than yours."),
            self.tr("In many places, showing an edited face as a real one has legal consequences."),
        )
        first = self.tr("This program changes how a face looks in live video.")
        last = self.tr("No picture leaves this computer except to the outputs that you switch on.")
        return f"<p>{first}</p><ul>{''.join(f'<li>{point}</li>' for point in points)}</ul><p>{last}</p>"
