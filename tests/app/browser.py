"""A headless Chromium with a page that shows a camera, driven through the pipe that it offers to debuggers."""

import base64
import json
import os
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engine.frames import ImageU8

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # it has none for root, which tests in containers are
    "--no-first-run",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--enable-features=WebRtcPipeWireCamera",
    "--use-fake-ui-for-media-stream",  # a yes to the page's wish for a camera; the camera itself is not a fake
    "--remote-debugging-pipe",
)
_PAGE = b"<!doctype html><title>A call</title><body style='margin:0'><video autoplay muted playsinline></video>"
_PICK = """(async () => {
    const wanted = NAME;
    // A browser that has just started may not have heard of any camera yet.
    const ask = async (tries) => {
        try {
            return await navigator.mediaDevices.getUserMedia({video: true});
        } catch (problem) {
            if (problem.name !== 'NotFoundError' || tries === 0) throw problem;
            await new Promise(resolve => setTimeout(resolve, 500));
            return ask(tries - 1);
        }
    };
    (await ask(60)).getTracks().forEach(track => track.stop());
    const found = (await navigator.mediaDevices.enumerateDevices()).filter(each => each.label === wanted);
    if (found.length !== 1) throw new Error('cameras of that name: ' + found.length);
    const video = {deviceId: {exact: found[0].deviceId}, width: WIDTH, height: HEIGHT};
    const stream = await navigator.mediaDevices.getUserMedia({video});
    const shown = document.querySelector('video');
    shown.srcObject = stream;
    await shown.play();
    return stream.getVideoTracks()[0].label;
})()"""
_PICTURE = """(() => {
    const shown = document.querySelector('video'), canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [shown.videoWidth, shown.videoHeight];
    canvas.getContext('2d').drawImage(shown, 0, 0);
    return canvas.toDataURL('image/png');
})()"""


class Browser:
    """A page that can pick a camera, and what is seen in it. Used by one thread."""

    def __init__(self, folder: Path) -> None:
        """folder: for the browser's profile and for what it says."""
        assert CHROMIUM
        self._site = ThreadingHTTPServer(("127.0.0.1", 0), _Site)
        threading.Thread(target=self._site.serve_forever, name="site", daemon=True).start()
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        # It reads from its third file and writes into its fourth.
        shell = f'exec 3<&{theirs_in} 4>&{theirs_out}; exec "$@"'
        words = ["bash", "-c", shell, "bash", CHROMIUM, *_FLAGS, f"--user-data-dir={folder / 'chromium'}"]
        with (folder / "chromium.txt").open("wb") as said:
            self._process = subprocess.Popen(words, pass_fds=(theirs_in, theirs_out), stdout=said, stderr=said)
        os.close(theirs_in), os.close(theirs_out)
        self._said, self._calls, self._session = b"", 0, ""
        pages = [each for each in self._call("Target.getTargets")["targetInfos"] if each["type"] == "page"]
        attached = self._call("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)
        self._session = attached["sessionId"]
        self._call("Page.enable")
        self._call("Page.navigate", url=f"http://127.0.0.1:{self._site.server_port}/")
        self._wait_for("Page.loadEventFired")

    def pick(self, name: str, size: tuple[int, int]) -> str:
        """Has the page ask for the camera of that name and size, (width, height) in px; what it was given."""
        script = _PICK.replace("NAME", json.dumps(name)).replace("WIDTH", str(size[0])).replace("HEIGHT", str(size[1]))
        return str(self._evaluate(script))

    def picture(self) -> ImageU8:
        """What the page's video shows now, uint8 BGR."""
        return _decoded(self._evaluate(_PICTURE).partition(",")[2])

    def screenshot(self) -> ImageU8:
        """The whole page, uint8 BGR."""
        return _decoded(self._call("Page.captureScreenshot")["data"])

    def end(self) -> None:
        """Closes the browser."""
        self._process.terminate()
        self._process.wait()
        os.close(self._to), os.close(self._from)
        self._site.shutdown()
        self._site.server_close()

    def _evaluate(self, script: str) -> Any:
        done = self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def _call(self, method: str, **parameters: object) -> dict[str, Any]:
        self._calls += 1
        call: dict[str, object] = {"id": self._calls, "method": method, "params": parameters}
        if self._session:
            call["sessionId"] = self._session
        os.write(self._to, json.dumps(call).encode() + b"\0")
        while (answer := self._next()).get("id") != self._calls:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def _wait_for(self, event: str) -> None:
        while self._next().get("method") != event:
            pass

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._said:
            more = os.read(self._from, 1 << 20)
            assert more, "the browser ended"
            self._said += more
        message, _, self._said = self._said.partition(b"\0")
        return json.loads(message)


class _Site(BaseHTTPRequestHandler):
    """One page: a browser gives no camera to a page that comes from nowhere."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(_PAGE)

    def log_message(self, *what: object) -> None:
        pass


def _decoded(picture: str) -> ImageU8:
    image = cv2.imdecode(np.frombuffer(base64.b64decode(picture), np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(image, dtype=np.uint8)
