"""Colours and style of the window, dark and light."""

from dataclasses import dataclass
from typing import Literal

from PyQt6.QtCore import Qt
from PyQt6.QtGui import QColor, QPalette
from PyQt6.QtWidgets import QApplication

ThemeName = Literal["system", "dark", "light"]
THEMES: tuple[ThemeName, ...] = ("system", "dark", "light")


@dataclass(frozen=True)
class Colours:
    """One theme.

    stage: behind the picture. panel: behind controls. raised: buttons and fields. line: borders. handle: of sliders.
    """

    stage: str
    panel: str
    raised: str
    hover: str
    line: str
    text: str
    muted: str
    handle: str
    accent: str
    on_accent: str
    warn_back: str
    warn_text: str
    record: str
    on_record: str


DARK = Colours(
    stage="#0f1114",
    panel="#191c21",
    raised="#262b33",
    hover="#313742",
    line="#3a414d",
    text="#e8eaee",
    muted="#a0a8b5",
    handle="#e8eaee",
    accent="#5aa2ff",
    on_accent="#08131f",
    warn_back="#4a3413",
    warn_text="#ffdca3",
    record="#ff5a55",
    on_record="#1f0605",
)
LIGHT = Colours(
    stage="#dfe3e8",
    panel="#f7f8fa",
    raised="#ffffff",
    hover="#e9edf2",
    line="#b9c1cc",
    text="#1a1d22",
    muted="#59626f",
    handle="#ffffff",
    accent="#1463d8",
    on_accent="#ffffff",
    warn_back="#ffe9c2",
    warn_text="#5a3c00",
    record="#d3231d",
    on_record="#ffffff",
)


def colours_of(name: ThemeName) -> Colours:
    """The theme of that name; `system` is dark unless the system says light."""
    if name != "system":
        return LIGHT if name == "light" else DARK
    hints = QApplication.styleHints()
    light = hints is not None and hints.colorScheme() is Qt.ColorScheme.Light
    return LIGHT if light else DARK


def apply(app: QApplication, colours: Colours) -> None:
    """Gives the whole program these colours."""
    app.setStyle("Fusion")
    app.setPalette(_palette(colours))
    app.setStyleSheet(_style(colours))


def _palette(c: Colours) -> QPalette:
    palette = QPalette()
    roles = {
        QPalette.ColorRole.Window: c.panel,
        QPalette.ColorRole.WindowText: c.text,
        QPalette.ColorRole.Base: c.raised,
        QPalette.ColorRole.AlternateBase: c.hover,
        QPalette.ColorRole.Text: c.text,
        QPalette.ColorRole.Button: c.raised,
        QPalette.ColorRole.ButtonText: c.text,
        QPalette.ColorRole.ToolTipBase: c.raised,
        QPalette.ColorRole.ToolTipText: c.text,
        QPalette.ColorRole.PlaceholderText: c.muted,
        QPalette.ColorRole.Highlight: c.accent,
        QPalette.ColorRole.HighlightedText: c.on_accent,
        QPalette.ColorRole.Mid: c.line,
        QPalette.ColorRole.BrightText: c.handle,
        QPalette.ColorRole.Dark: c.stage,
        QPalette.ColorRole.Light: c.hover,
    }
    for role, colour in roles.items():
        palette.setColor(role, QColor(colour))
    for role in (QPalette.ColorRole.Text, QPalette.ColorRole.ButtonText, QPalette.ColorRole.WindowText):
        palette.setColor(QPalette.ColorGroup.Disabled, role, QColor(c.muted))
    return palette


def _style(c: Colours) -> str:
    return f"""
    QWidget {{ font-size: 13px; }}
    QDialog, QMainWindow, #panel, #bar, QStatusBar {{ background: {c.panel}; }}
    QToolTip {{ background: {c.raised}; color: {c.text}; border: 1px solid {c.line}; padding: 4px; }}
    QLabel#group {{ color: {c.muted}; font-size: 11px; font-weight: 600; padding: 8px 0 0 0; }}
    QLabel#heading {{ font-size: 18px; font-weight: 600; }}
    QLabel[muted="true"] {{ color: {c.muted}; }}
    QLabel[touched="true"] {{ color: {c.accent}; font-weight: 600; }}
    QPushButton, QComboBox, QDoubleSpinBox, QToolButton {{
        background: {c.raised}; color: {c.text}; border: 1px solid {c.line}; border-radius: 6px;
        padding: 4px 10px; min-height: 20px;
    }}
    QDoubleSpinBox {{ padding: 1px 4px; }}
    QToolButton {{ padding: 4px 8px; }}
    QComboBox::drop-down {{ border: none; width: 22px; }}
    QToolButton::menu-indicator {{ image: none; }}
    QPushButton:hover, QComboBox:hover, QToolButton:hover, QDoubleSpinBox:hover {{
        background: {c.hover}; }}
    QPushButton:focus, QComboBox:focus, QDoubleSpinBox:focus, QToolButton:focus {{
        border: 2px solid {c.accent}; padding: 3px 9px; }}
    QDoubleSpinBox:focus {{ padding: 0px 3px; }}
    QToolButton:focus {{ padding: 3px 7px; }}
    QPushButton:checked, QToolButton:checked {{ background: {c.accent}; color: {c.on_accent};
        border-color: {c.accent}; }}
    QPushButton:disabled, QComboBox:disabled, QDoubleSpinBox:disabled {{ color: {c.muted}; background: {c.panel}; }}
    QPushButton#record:checked {{ background: {c.record}; border-color: {c.record}; color: {c.on_record}; }}
    QPushButton[segment="first"] {{ border-top-right-radius: 0; border-bottom-right-radius: 0; border-right: none; }}
    QPushButton[segment="middle"] {{ border-radius: 0; border-right: none; }}
    QPushButton[segment="last"] {{ border-top-left-radius: 0; border-bottom-left-radius: 0; }}
    QTabWidget::pane {{ border: none; border-top: 1px solid {c.line}; }}
    QTabBar {{ background: {c.panel}; }}
    QTabBar::tab {{ background: transparent; color: {c.muted}; padding: 8px 14px; border: none;
        border-bottom: 2px solid transparent; }}
    QTabBar::tab:selected {{ color: {c.text}; border-bottom: 2px solid {c.accent}; }}
    QTabBar::tab:hover, QTabBar::tab:focus {{ color: {c.text}; }}
    QScrollArea, #sliders {{ background: transparent; border: none; }}
    QScrollBar:vertical {{ background: transparent; width: 10px; margin: 0; }}
    QScrollBar::handle:vertical {{ background: {c.line}; border-radius: 4px; min-height: 30px; margin: 1px; }}
    QScrollBar::add-line, QScrollBar::sub-line {{ height: 0; }}
    #banner {{ background: {c.warn_back}; border-radius: 6px; }}
    #banner QLabel {{ color: {c.warn_text}; background: transparent; }}
    #banner QToolButton {{ background: transparent; border: none; color: {c.warn_text}; }}
    #banner QToolButton:focus {{ border: 1px solid {c.warn_text}; }}
    #banner[kind="note"] {{ background: {c.hover}; }}
    #banner[kind="note"] QLabel, #banner[kind="note"] QToolButton {{ color: {c.text}; }}
    QStatusBar {{ border-top: 1px solid {c.line}; }}
    QStatusBar::item {{ border: none; }}
    QStatusBar QLabel {{ color: {c.muted}; padding: 0 6px; }}
    QMenu {{ background: {c.raised}; border: 1px solid {c.line}; }}
    QMenu::item {{ padding: 5px 22px; }}
    QMenu::item:selected {{ background: {c.accent}; color: {c.on_accent}; }}
    QComboBox QAbstractItemView {{ background: {c.raised}; border: 1px solid {c.line}; outline: none; }}
    """
