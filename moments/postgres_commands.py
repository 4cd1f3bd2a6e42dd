"""What the embedded PostgreSQL is told: its settings and the commands that make and start it. Nothing runs here."""

from __future__ import annotations

from pathlib import Path

from moments.postgres_programs import Programs

APP = "moments"
SUPERUSER = "postgres"

# Given at every start, so that a cluster made by an earlier version gets them too.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket's path may have 107 bytes; a state folder's may have more
    "max_connections": "200",
    "shared_buffers": "128MB",
    # Containers often have 64 MB of /dev/shm or none. Only parallel queries need much of it, and on a small machine
    # ffmpeg wants the cores: without them shared memory in a file costs nothing.
    "dynamic_shared_memory_type": "mmap",
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
    "max_wal_size": "512MB",
    "fsync": "on",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # A file a weekday, emptied when its day comes again; statements stay out: they may hold a user's words.
    "logging_collector": "on",
    "log_directory": "log",
    "log_filename": "server-%a.log",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
    "log_truncate_on_rotation": "on",
    "log_file_mode": "0600",
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
}


def initdb_command(programs: Programs, data: Path, password_file: Path) -> list[str]:
    """Make a cluster that is the same on each machine: C.UTF-8 sorts by code point and knows letters beyond ASCII.

    It is not synced: `sync_command` does that once, when the roles are in it too.
    """
    memory = [
        f"-c{name}={SETTINGS[name]}" for name in ("dynamic_shared_memory_type", "shared_buffers", "max_connections")
    ]
    return [
        *(programs.path("initdb"), "--pgdata", str(data), "--username", SUPERUSER, "--pwfile", str(password_file)),
        *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin"),
        *("--builtin-locale=C.UTF-8", "--no-sync", "--no-instructions", *memory),
    ]


def single_user_command(programs: Programs, data: Path) -> list[str]:
    """Run the statements of the standard input without a server, up to the first that fails; none is ever printed."""
    quiet = ["-c", "exit_on_error=true", "-c", "log_min_error_statement=panic"]
    return [programs.path("postgres"), "--single", "-F", "-D", str(data), *quiet, SUPERUSER]


def role_statements(password: str) -> str:
    """The role of the application, no superuser, and its database. `password` is URL-safe: there's nothing to quote.

    One iteration: more of them make it costly to guess a password, and ours is 24 random bytes. They made it costly
    to connect as well, which Dagster's storage does for every query: 9 ms each, a hundred times a run.
    """
    role = f"CREATE ROLE {APP} LOGIN PASSWORD '{password}'"
    return f"SET scram_iterations = 1;\n{role};\nCREATE DATABASE {APP} OWNER {APP};\n"


def sync_command(programs: Programs, data: Path) -> list[str]:
    """Bring all of a cluster that no server runs on to the disk."""
    return [programs.path("initdb"), "--sync-only", "--pgdata", str(data)]


def server_command(programs: Programs, data: Path, port: int) -> list[str]:
    """The postmaster on `data`."""
    settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
    return [programs.path("postgres"), "-D", str(data), f"--port={port}", *settings]
