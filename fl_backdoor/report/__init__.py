"""What runs show, and what they do not: tables, figures, and one page that opens offline."""

from .report import write_report

__all__ = ["write_report"]
