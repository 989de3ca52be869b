"""Ends a connection whose other machine has gone without a word."""

import asyncio
import socket

USER_TIMEOUT_MS = 10_000  # for data without an acknowledgement; beats are such data


def set_user_timeout(transport: asyncio.BaseTransport) -> None:
    own: socket.socket = transport.get_extra_info("socket")
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
