"""The window: a large picture, a slider for each attribute, and what the run is doing.

It edits nothing itself. What a person changes becomes one new `RunSettings` or one new `Controls`, which the bridge
passes on; what comes back is shown.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from PyQt6.QtCore import QEvent, Qt, QTimer
from PyQt6.QtGui import QCloseEvent, QKeyEvent, QKeySequence, QShortcut
from PyQt6.QtWidgets import (
    QApplication,
    QButtonGroup,
    QHBoxLayout,
    QMainWindow,
    QScrollArea,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from app.gui import theme
from app.gui.banner import Banner
from app.gui.bridge import Bridge
from app.gui.buttons import make_button
from app.gui.likeness_panel import LikenessPanel
from app.gui.memory import Memory
from app.gui.outputs import Outputs, new_snapshot
from app.gui.preset_bar import KEYS, PresetBar
from app.gui.preview import VIEWS, Preview, View
from app.gui.setup_panel import SetupPanel
from app.gui.sliders import SliderPanel
from app.gui.source_picker import SourcePicker
from app.gui.status import Status
from app.presets import PresetFolder
from engine.frames import Controls

_FIGURES_EVERY_S = 0.2
_PULSE_MS = 200
_PANEL_PX = 350


class Window(QMainWindow):
    """What a person touches. Closing it ends the run and remembers everything that was chosen."""

    def __init__(self, bridge: Bridge, memory: Memory, stopped: Callable[[], bool] = lambda: False) -> None:
        """stopped: tells that the program was asked to end from outside; then the window closes."""
        super().__init__()
        self._bridge = bridge
        self._memory = memory
        self._stopped = stopped
        self.looks = memory.looks()
        self._values: Mapping[str, float] = dict(bridge.controls.values)
        self._labels: Mapping[str, str] | None = None
        self._figures_s = 0.0
        self._ended_well = True
        self.setWindowTitle("RIGID Live")
        self.setMinimumSize(880, 480)
        self.resize(1240, 760)
        self._make_parts()
        self._lay_out()
        self._connect()
        self._make_shortcuts()
        self._apply_looks()
        self._push_controls()
        self._on_state()
        self.preview.setFocus()
        self._pulse = QTimer(self)
        self._pulse.timeout.connect(self._on_pulse)
        self._pulse.start(_PULSE_MS)

    @property
    def ended_well(self) -> bool:
        """False when something still ran five seconds after the window was closed."""
        return self._ended_well

    def _make_parts(self) -> None:
        settings = self._bridge.settings
        self.source = SourcePicker(settings.source)
        self.preview, self.sliders, self.banner, self.status = Preview(), SliderPanel(), Banner(), Status()
        self.setup = SetupPanel(settings, self.looks.theme)
        folder = PresetFolder(self._memory.folder / "presets")
        self.presets = PresetBar(folder, self.looks.preset_keys, lambda: self.sliders.values)
        self.edits_on = make_button("", self.tr("All edits on or off"), "E", checkable=True)
        self.edits_on.setAccessibleName(self.tr("All edits"))
        self.compare = make_button(self.tr("Hold to compare"), self.tr("Shows the picture before the edit"), "C")
        self.reset = make_button(self.tr("All to 0"), self.tr("Puts every slider back to 0"), "Ctrl+0")
        self.mirror = make_button(
            self.tr("Mirror"), self.tr("Turns the picture here; what is written is not turned"), "M", checkable=True
        )
        self.likeness = LikenessPanel(self._bridge.people)
        self.snapshot = make_button(self.tr("Snapshot"), self.tr("Saves the edited picture"), "S")
        self.outputs = Outputs(settings.sink)
        names = {"before": self.tr("Before"), "after": self.tr("After"), "split": self.tr("Split")}
        self.views = {view: make_button(names[view], self.tr("What is seen"), "V", checkable=True) for view in VIEWS}

    def _lay_out(self) -> None:
        bar = QWidget()
        bar.setObjectName("bar")
        top = QHBoxLayout(bar)
        top.setContentsMargins(12, 8, 12, 8)
        top.addWidget(self.source, 2)
        top.addStretch(1)
        top.addLayout(self._view_switch())
        top.addStretch(1)
        for button in (self.mirror, self.snapshot, self.outputs):
            top.addWidget(button)
        left = QVBoxLayout()
        left.setContentsMargins(12, 0, 0, 8)
        left.addWidget(self.banner)
        left.addWidget(self.preview, 1)
        middle = QHBoxLayout()
        middle.setSpacing(12)
        middle.addLayout(left, 1)
        middle.addWidget(self._side_panel())
        whole = QWidget()
        rows = QVBoxLayout(whole)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(0)
        rows.addWidget(bar)
        rows.addLayout(middle, 1)
        self.setCentralWidget(whole)
        self.setStatusBar(self.status)

    def _view_switch(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(0)
        group = QButtonGroup(self)
        for view, place in zip(VIEWS, ("first", "middle", "last"), strict=True):
            self.views[view].setProperty("segment", place)
            group.addButton(self.views[view])
            row.addWidget(self.views[view])
        return row

    def _side_panel(self) -> QWidget:
        edits = QWidget()
        column = QVBoxLayout(edits)
        column.setContentsMargins(0, 12, 0, 10)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        scroll.setWidget(self.sliders)
        switches = QHBoxLayout()
        switches.setContentsMargins(14, 0, 14, 0)
        switches.addWidget(self.edits_on, 1)
        switches.addWidget(self.compare, 1)
        presets = QHBoxLayout()
        presets.setContentsMargins(14, 0, 14, 0)
        presets.addWidget(self.presets)
        foot = QHBoxLayout()
        foot.setContentsMargins(14, 0, 14, 0)
        foot.addWidget(self.reset)
        column.addLayout(switches)
        column.addLayout(presets)
        column.addWidget(scroll, 1)
        likeness = QHBoxLayout()
        likeness.setContentsMargins(14, 0, 14, 0)
        likeness.addWidget(self.likeness)
        column.addLayout(foot)
        column.addLayout(likeness)
        setup = QScrollArea()
        setup.setWidgetResizable(True)
        setup.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        setup.setWidget(self.setup)
        self.tabs = QTabWidget()
        self.tabs.setObjectName("panel")
        self.tabs.setFixedWidth(_PANEL_PX)
        pages = self.tabs.tabBar()
        if pages is not None:
            pages.setAccessibleName(self.tr("Pages"))
        self.tabs.addTab(edits, self.tr("Edit"))
        self.tabs.addTab(setup, self.tr("Set-up"))
        return self.tabs

    def _connect(self) -> None:
        self._bridge.frame_ready.connect(self._on_frame)
        self._bridge.state_changed.connect(self._on_state)
        self._bridge.snapshot_done.connect(self._on_snapshot)
        self.sliders.changed.connect(self._push_controls)
        self.edits_on.toggled.connect(self._push_controls)
        self.reset.clicked.connect(lambda: self.sliders.set_values({}))
        self.compare.pressed.connect(lambda: self.preview.set_comparing(True))
        self.compare.released.connect(lambda: self.preview.set_comparing(False))
        self.presets.picked.connect(self._on_preset)
        self.presets.failed.connect(lambda why: self.banner.tell(why, wrong=True))
        self.likeness.changed.connect(lambda changes: self._change(**changes))
        self.likeness.failed.connect(lambda why: self.banner.tell(why, wrong=True))
        self.source.picked.connect(lambda source: self._change(source=source))
        self.source.activated.connect(lambda: self.preview.setFocus())
        self.setup.changed.connect(lambda changes: self._change(**changes))
        self.setup.theme_changed.connect(self._set_theme)
        self.mirror.toggled.connect(self.preview.set_mirrored)
        self.snapshot.clicked.connect(self._take_snapshot)
        self.outputs.changed.connect(lambda sinks: self._change(sink=sinks))
        self.outputs.told.connect(lambda text, wrong: self.banner.tell(text, wrong=wrong))
        for view, button in self.views.items():
            button.clicked.connect(partial(self._set_view, view))
        hints = QApplication.styleHints()
        if hints is not None:
            hints.colorSchemeChanged.connect(lambda: self._set_theme(self.looks.theme))

    def _make_shortcuts(self) -> None:
        self._shortcut("E", self.edits_on.toggle)
        self._shortcut("C", lambda: self.preview.set_comparing(True))
        self._shortcut("V", self._next_view)
        self._shortcut("M", self.mirror.toggle)
        self._shortcut("S", self._take_snapshot)
        self._shortcut("R", self.outputs.record.toggle)
        self._shortcut("K", self.outputs.camera.toggle)
        self._shortcut("Ctrl+0", self.reset.click)
        self._shortcut("Ctrl+O", self.source.open_file)
        self._shortcut("Ctrl+Q", self.close)
        for key in KEYS:
            self._shortcut(str(key), partial(self.presets.pick_key, key))

    def _shortcut(self, keys: str, do: Callable[[], object]) -> None:
        shortcut = QShortcut(QKeySequence(keys), self)
        shortcut.setAutoRepeat(False)
        shortcut.activated.connect(do)

    def _apply_looks(self) -> None:
        self.edits_on.setChecked(self.looks.edits_on)
        self.mirror.setChecked(self.looks.mirror)
        self.preview.set_divider(self.looks.divider)
        self._set_view(self.looks.view)
        self._set_theme(self.looks.theme)
        geometry = self._memory.geometry()
        if geometry is not None:
            self.restoreGeometry(geometry)

    def keyReleaseEvent(self, event: QKeyEvent | None) -> None:
        """Ends a comparison that the key began."""
        if event and event.key() == Qt.Key.Key_C and not event.isAutoRepeat():
            self.preview.set_comparing(False)

    def changeEvent(self, event: QEvent | None) -> None:
        """Ends a comparison when the window is left with the key held down."""
        if event and event.type() is QEvent.Type.ActivationChange and not self.isActiveWindow():
            self.preview.set_comparing(False)
        super().changeEvent(event)

    def closeEvent(self, event: QCloseEvent | None) -> None:
        """Remembers what was chosen and ends every thread."""
        self._pulse.stop()
        looks = self.looks
        looks.divider, looks.mirror = self.preview.divider, self.mirror.isChecked()
        looks.edits_on = self.edits_on.isChecked()
        values = self.sliders.values if self._labels is not None else self._values
        self._memory.keep(self._bridge.settings, values, looks, self.saveGeometry())
        self.hide()
        self._ended_well = self._bridge.end()
        super().closeEvent(event)

    def _change(self, **changes: object) -> None:
        """Swaps the settings of the run."""
        self._bridge.settings = replace(self._bridge.settings, **changes)  # type: ignore[arg-type]

    def _push_controls(self) -> None:
        """Swaps the controls of the run."""
        on = self.edits_on.isChecked()
        self.edits_on.setText(self.tr("Edits on") if on else self.tr("Edits off"))
        values = self.sliders.values if self._labels is not None else self._values
        self._bridge.controls = Controls(values if on else {})

    def _on_frame(self) -> None:
        frame = self._bridge.take_frame()
        if frame is None:
            return
        self.preview.show_frame(frame)
        now_s = time.monotonic()
        if now_s - self._figures_s > _FIGURES_EVERY_S:
            self._figures_s = now_s
            self.status.show_frame(frame)

    def _on_state(self) -> None:
        state = self._bridge.state
        if state.labels is not None and state.labels != self._labels:
            self._build_sliders(state.labels)
        self.status.show_state(state)
        self.banner.show_problems(state.problems)
        self.preview.set_message(self._waiting_for())
        self.snapshot.setEnabled(not state.opening)
        self.outputs.show_state(state)
        self.likeness.show_state(state)
        if state.likeness_problem and (self._bridge.settings.likeness or self._bridge.settings.person):
            self.banner.tell(state.likeness_problem, wrong=True)
            self._change(likeness=False, person="")
        if state.over:
            self.close()

    def _waiting_for(self) -> str:
        state, settings = self._bridge.state, self._bridge.settings
        if state.opening:
            return self.tr("Opening %1…").replace("%1", self.source.currentText())
        if state.loading and not state.runtime:
            loading = self.tr("Loading the networks…")
            blurred = self.tr("The picture stays blurred until they are there.")
            hidden = not self._bridge.controls.neutral and settings.lost_face != "passthrough"
            return f"{loading} {blurred}" if hidden else loading
        return ""

    def _build_sliders(self, labels: Mapping[str, str]) -> None:
        values = self._values if self._labels is None else self.sliders.values
        self._labels = labels
        self.sliders.build(labels, values)
        self._push_controls()
        self._tell_unknown(values)

    def _tell_unknown(self, values: Mapping[str, float]) -> None:
        unknown = [name for name in values if self._labels is not None and name not in self._labels]
        if unknown:
            text = self.tr("This bundle has no %1, which was left out.").replace("%1", ", ".join(unknown))
            self.banner.tell(text, wrong=True)

    def _on_preset(self, name: str, values: Mapping[str, float]) -> None:
        self.sliders.set_values(values)
        self.banner.tell(self.tr("Preset: %1").replace("%1", name))
        self._tell_unknown(values)

    def _on_snapshot(self, path: str, why: str) -> None:
        text = why or self.tr("Saved: %1").replace("%1", path)
        self.banner.tell(text, wrong=bool(why))

    def _on_pulse(self) -> None:
        if self._stopped():  # also lets Python see signals while Qt waits
            self.close()

    def _set_view(self, view: View, _checked: bool = False) -> None:
        self.looks.view = view
        self.views[view].setChecked(True)
        self.preview.set_view(view)

    def _next_view(self) -> None:
        self._set_view(VIEWS[(VIEWS.index(self.looks.view) + 1) % len(VIEWS)])

    def _set_theme(self, name: theme.ThemeName) -> None:
        self.looks.theme = name
        colours = theme.colours_of(name)
        app = QApplication.instance()
        assert isinstance(app, QApplication)
        theme.apply(app, colours)
        self.preview.set_colours(colours)
        self.outputs.set_colours(colours)

    def _take_snapshot(self) -> None:
        frame = self.preview.frame
        if frame is not None:
            self._bridge.save_snapshot(frame.edited.image, str(new_snapshot()))
