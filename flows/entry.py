"""Where the command `alloop` begins: ctrl-C is heeded before anything else is imported."""

from flows.interrupt import end_at_once_when_interrupted


def main() -> None:
    """Run the command line; the process ends with the exit code of what happened."""
    end_at_once_when_interrupted()
    from flows.cli import main as run  # heavy

    run()
