"""Alembic migrations, applied by `ostler.core.migrate`. Never change one that was released; add the next."""
