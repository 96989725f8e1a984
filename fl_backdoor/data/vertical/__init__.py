"""How columns are split among parties."""
