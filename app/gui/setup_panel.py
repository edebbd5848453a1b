"""The second page of the panel: what the engine runs on, and how the window looks."""

from collections.abc import Mapping

from PyQt6.QtCore import Qt, pyqtSignal
from PyQt6.QtWidgets import QComboBox, QFileDialog, QFormLayout, QLabel, QSpinBox, QWidget

from app.gui.theme import THEMES
from app.settings import CHOICES, RunSettings

_FOLDER = "open folder"


class SetupPanel(QWidget):
    """`changed` carries the settings of the run that were changed, by name; `theme_changed` the theme's name."""

    changed = pyqtSignal(dict)
    theme_changed = pyqtSignal(str)

    def __init__(self, settings: RunSettings, theme: str) -> None:
        super().__init__()
        self.bundle, self.runtime, self.lost_face, self.theme = (QComboBox() for _ in range(4))
        self.max_faces = QSpinBox()
        self.max_faces.setRange(1, max(8, settings.max_faces))
        self.max_faces.setValue(settings.max_faces)
        self._form = QFormLayout(self)
        self._form.setContentsMargins(14, 12, 14, 12)
        self._form.setVerticalSpacing(10)
        self._form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        self._form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self._fill_bundles(settings.bundle)
        _fill(self.runtime, {name: self._runtime_words().get(name, name) for name in CHOICES["runtime"]})
        _fill(self.lost_face, {name: self._policy_words()[name] for name in CHOICES["lost_face"]})
        _fill(self.theme, {name: self._theme_words()[name] for name in THEMES})
        _choose(self.runtime, settings.runtime)
        _choose(self.lost_face, settings.lost_face)
        _choose(self.theme, theme)
        self._add(self.tr("&Bundle"), self.bundle, self.tr("The networks and the attributes they know"))
        self._add(self.tr("&Runtime"), self.runtime, self.tr("What the networks run on"))
        self._add(self.tr("&Faces edited"), self.max_faces, self.tr("The largest so many; each one costs time"))
        self._add(self.tr("Face &lost"), self.lost_face, self.tr("What is shown while the face cannot be followed"))
        self._add(self.tr("&Theme"), self.theme, self.tr("Colours of the window"))
        self._form.addRow(self._keys())
        self._connect()

    def show_settings(self, settings: RunSettings) -> None:
        """Shows what runs; tells nobody."""
        self._fill_bundles(settings.bundle)
        _choose(self.runtime, settings.runtime)
        _choose(self.lost_face, settings.lost_face)

    def _connect(self) -> None:
        self.bundle.activated.connect(self._bundle_picked)
        self.runtime.activated.connect(lambda: self.changed.emit({"runtime": self.runtime.currentData()}))
        self.lost_face.activated.connect(lambda: self.changed.emit({"lost_face": self.lost_face.currentData()}))
        self.max_faces.valueChanged.connect(lambda count: self.changed.emit({"max_faces": count}))
        self.theme.activated.connect(lambda: self.theme_changed.emit(self.theme.currentData()))

    def _add(self, label: str, field: QWidget, tip: str) -> None:
        name = QLabel(label)
        name.setBuddy(field)
        field.setAccessibleName(label.replace("&", ""))
        field.setToolTip(tip)
        if isinstance(field, QComboBox):
            field.setMinimumContentsLength(12)
            field.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._form.addRow(name, field)

    def _fill_bundles(self, chosen: str) -> None:
        words = {"default": self.tr("Default"), "paper-256": self.tr("Paper's size (random weights, slow)")}
        if chosen not in words:
            words[chosen] = chosen
        words[_FOLDER] = self.tr("Open folder…")
        _fill(self.bundle, words)
        _choose(self.bundle, chosen)
        self._bundle = chosen

    def _bundle_picked(self) -> None:
        chosen = str(self.bundle.currentData())
        if chosen == _FOLDER:
            chosen = QFileDialog.getExistingDirectory(self, self.tr("Open a bundle"))
        chosen = chosen or self._bundle
        changed = chosen != self._bundle
        self._fill_bundles(chosen)
        if changed:
            self.changed.emit({"bundle": chosen})

    def _runtime_words(self) -> Mapping[str, str]:
        return {
            "auto": self.tr("Automatic"),
            "openvino": "OpenVINO",
            "onnxruntime": "ONNX Runtime",
            "tensorrt": "TensorRT",
            "eager": "PyTorch",
        }

    def _policy_words(self) -> Mapping[str, str]:
        return {
            "hold": self.tr("Hold, then blur"),
            "freeze": self.tr("Freeze"),
            "blank": self.tr("Grey picture"),
            "passthrough": self.tr("Show the face unedited"),
        }

    def _theme_words(self) -> Mapping[str, str]:
        return {"system": self.tr("As the system"), "dark": self.tr("Dark"), "light": self.tr("Light")}

    def _keys(self) -> QLabel:
        rows = (
            ("E", self.tr("all edits on or off")),
            ("C", self.tr("hold to compare")),
            ("V", self.tr("before, after, split")),
            ("1 … 9", self.tr("presets")),
            ("M", self.tr("mirror")),
            ("S", self.tr("snapshot")),
            ("R", self.tr("record")),
            ("Ctrl+0", self.tr("all sliders to 0")),
            ("Ctrl+O", self.tr("open a file")),
            ("Ctrl+Q", self.tr("quit")),
        )
        cells = "".join(
            f"<tr><td style='padding-right: 14px'><b>{key}</b></td><td>{text}</td></tr>" for key, text in rows
        )
        label = QLabel(f"<p><br>{self.tr('Keys')}</p><table>{cells}</table>")
        label.setTextFormat(Qt.TextFormat.RichText)
        label.setProperty("muted", True)
        label.setAccessibleName(self.tr("Keys"))
        return label


def _fill(box: QComboBox, words: Mapping[str, str]) -> None:
    box.clear()
    for name, text in words.items():
        box.addItem(text, name)


def _choose(box: QComboBox, name: str) -> None:
    box.setCurrentIndex(box.findData(name))
