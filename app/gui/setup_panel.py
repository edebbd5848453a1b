"""The second page of the panel: what the engine runs on, and how the window looks."""

from collections.abc import Mapping
from pathlib import Path

from PyQt6.QtCore import Qt, pyqtSignal
from PyQt6.QtWidgets import QFileDialog, QFormLayout, QLabel, QWidget

from app.gui.choice import Choice
from app.settings import CHOICES, RunSettings

_FOLDER = "open folder"
_FACES = (1, 2, 3, 4)


class SetupPanel(QWidget):
    """`changed` carries the settings of the run that were changed, by name; `theme_changed` the theme's name."""

    changed = pyqtSignal(dict)
    theme_changed = pyqtSignal(str)

    def __init__(self, settings: RunSettings, theme: str) -> None:
        super().__init__()
        self._bundle = settings.bundle
        self.bundle = Choice(self.tr("Bundle"), self.tr("The networks and the attributes they know"))
        self.runtime = Choice(self.tr("Runtime"), self.tr("What the networks run on"))
        self.max_faces = Choice(self.tr("Faces edited"), self.tr("The largest so many; each one costs time"))
        self.lost_face = Choice(self.tr("Face lost"), self.tr("What is shown while the face cannot be followed"))
        self.theme = Choice(self.tr("Theme"), self.tr("Colours of the window"))
        self._form = QFormLayout(self)
        self._form.setContentsMargins(14, 12, 14, 12)
        self._form.setVerticalSpacing(10)
        self._form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self._fill(settings, theme)
        self._add(self.tr("&Bundle"), self.bundle)
        self._add(self.tr("&Runtime"), self.runtime)
        self._add(self.tr("&Faces edited"), self.max_faces)
        self._add(self.tr("Face &lost"), self.lost_face)
        self._add(self.tr("&Theme"), self.theme)
        self._form.addRow(self._keys())
        self._connect()

    def _fill(self, settings: RunSettings, theme: str) -> None:
        self._fill_bundles(settings.bundle)
        runtimes = self._runtime_words()
        self.runtime.fill({name: runtimes.get(name, name) for name in CHOICES["runtime"]}, settings.runtime)
        counts = sorted({*_FACES, settings.max_faces})
        self.max_faces.fill({str(count): str(count) for count in counts}, str(settings.max_faces))
        policies = self._policy_words()
        self.lost_face.fill({name: policies[name] for name in CHOICES["lost_face"]}, settings.lost_face)
        self.theme.fill(self._theme_words(), theme)

    def _connect(self) -> None:
        self.bundle.activated.connect(self._bundle_picked)
        self.runtime.activated.connect(lambda: self.changed.emit({"runtime": self.runtime.value}))
        self.lost_face.activated.connect(lambda: self.changed.emit({"lost_face": self.lost_face.value}))
        self.max_faces.activated.connect(lambda: self.changed.emit({"max_faces": int(self.max_faces.value)}))
        self.theme.activated.connect(lambda: self.theme_changed.emit(self.theme.value))

    def _add(self, label: str, field: Choice) -> None:
        name = QLabel(label)
        name.setBuddy(field)
        self._form.addRow(name, field)

    def _fill_bundles(self, chosen: str) -> None:
        words = {"default": self.tr("Default"), "paper-256": self.tr("Paper's size (random weights, slow)")}
        if chosen not in words:
            words[chosen] = Path(chosen).name or chosen
        words[_FOLDER] = self.tr("Open folder…")
        self.bundle.fill(words, chosen)
        self._bundle = chosen

    def _bundle_picked(self) -> None:
        chosen = self.bundle.value
        if chosen == _FOLDER:
            chosen = QFileDialog.getExistingDirectory(self, self.tr("Open a bundle"))
        before, chosen = self._bundle, chosen or self._bundle
        self._fill_bundles(chosen)
        if chosen != before:
            self.changed.emit({"bundle": chosen})

    def _runtime_words(self) -> Mapping[str, str]:
        return {
            "auto": self.tr("Automatic"),
            "openvino": "OpenVINO",
            "onnxruntime": "ONNX Runtime",
            "tensorrt": "TensorRT",
            "torch-tensorrt": "Torch-TensorRT",
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
            ("K", self.tr("virtual camera")),
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
