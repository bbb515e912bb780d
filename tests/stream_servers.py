"""Cameras on the network, on loopback: MJPEG over HTTP, and RTSP with JPEG over RTP inside the RTSP connection."""

import base64
import io
import re
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

FRAME_S = 0.04


def jpeg(level: int, size: tuple[int, int] = (64, 48)) -> bytes:
    """A picture of one colour: level, 128, 64."""
    pixels = np.full((size[1], size[0], 3), (level, 128, 64), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=2)
    return buffer.getvalue()


class NetworkCamera:
    """A server that streams pictures of the level it is set to, to whoever connects, until stopped."""

    def __init__(self) -> None:
        self.level = 200
        self.running = True
        self.connections: list[socket.socket] = []
        self.requests: list[str] = []

    def hang_up(self) -> None:
        """Break all connections, as a camera does that loses its power."""
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # closed already
        self.connections.clear()


class HttpCamera(NetworkCamera):
    """MJPEG: multipart/x-mixed-replace."""

    def __init__(self) -> None:
        super().__init__()
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera.connections.append(self.connection)
                camera.requests.append(self.headers.get("Authorization", ""))
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                try:
                    while camera.running:
                        data = jpeg(camera.level)
                        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                        self.wfile.write(head.encode() + data + b"\r\n")
                        time.sleep(FRAME_S)
                except OSError:
                    return  # hung up

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/video.mjpg"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.running = False
        self.hang_up()
        self._server.shutdown()
        self._server.server_close()


class RtspCamera(NetworkCamera):
    """RTSP 1.0 with interleaved RTP (RFC 2326) of JPEG frames (RFC 2435), and basic authentication."""

    def __init__(self, user: str = "user", password: str = "geheim") -> None:
        super().__init__()
        self._basic = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = f"rtsp://{user}:{password}@{self.address}/stream"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.running = False
        self.hang_up()
        self._listener.close()

    def _accept(self) -> None:
        while self.running:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        lock, buffer = threading.Lock(), b""
        try:
            with connection:
                while data := connection.recv(65536):
                    buffer += data
                    while b"\r\n\r\n" in buffer:
                        request, buffer = buffer.split(b"\r\n\r\n", 1)
                        self._answer(connection, request.decode("latin-1"), lock)
        except OSError:
            return  # hung up

    def _answer(self, connection: socket.socket, request: str, lock: threading.Lock) -> None:
        method = request.split(" ", 1)[0].lstrip("$\0")
        number = re.search(r"CSeq: (\d+)", request, re.IGNORECASE)
        if number is None:
            return  # RTCP from the receiver
        self.requests.append(method)
        status, extra, body = "200 OK", "", ""
        if method == "OPTIONS":
            extra = "Public: DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
        elif self._basic not in request:
            status, extra = "401 Unauthorized", 'WWW-Authenticate: Basic realm="camera"\r\n'
        elif method == "DESCRIBE":
            body = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 26\r\na=control:track\r\n"
            extra = f"Content-Type: application/sdp\r\nContent-Base: rtsp://{self.address}/stream/\r\n"
        elif method == "SETUP":
            extra = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
        head = f"RTSP/1.0 {status}\r\nCSeq: {number[1]}\r\nSession: 1\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
        with lock:
            connection.sendall((head + body).encode())
        if method == "PLAY":
            threading.Thread(target=self._play, args=(connection, lock), daemon=True).start()

    def _play(self, connection: socket.socket, lock: threading.Lock) -> None:
        sequence = 0
        started_s = time.monotonic()
        try:
            while self.running:
                stamp = int((time.monotonic() - started_s) * 90_000) & 0xFFFFFFFF
                for packet in rtp_packets(jpeg(self.level), sequence, stamp):
                    sequence += 1
                    with lock:
                        connection.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)
                time.sleep(FRAME_S)
        except OSError:
            return  # hung up


def rtp_packets(picture: bytes, sequence: int, stamp: int) -> list[bytes]:
    """A baseline 4:2:0 JPEG with Pillow's standard Huffman tables as RTP packets. Source: RFC 2435, 3.1."""
    tables, width, height, offset = b"", 0, 0, 2
    while True:
        marker, length = picture[offset + 1], struct.unpack_from(">H", picture, offset + 2)[0]
        segment = picture[offset + 4 : offset + 2 + length]
        if marker == 0xDB:
            for start in range(0, len(segment), 65):
                tables += segment[start + 1 : start + 65]
        elif marker == 0xC0:
            height, width = struct.unpack_from(">HH", segment, 1)
        offset += 2 + length
        if marker == 0xDA:
            break
    scan, packets = picture[offset:-2], []
    pieces = [scan[start : start + 1000] for start in range(0, len(scan), 1000)]
    position = 0
    for index, piece in enumerate(pieces):
        last = index == len(pieces) - 1
        header = struct.pack(">BBHII", 0x80, 26 | (0x80 if last else 0), (sequence + index) & 0xFFFF, stamp, 7)
        header += struct.pack(">B", 0) + position.to_bytes(3, "big") + bytes([1, 255, width // 8, height // 8])
        if index == 0:
            header += struct.pack(">BBH", 0, 0, len(tables)) + tables
        packets.append(header + piece)
        position += len(piece)
    return packets
