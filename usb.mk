# The extension of Microsoft's USB: an environment of its own, with the real packages (docs/usb.md).

USB := .venv-usb

test-usb: $(USB)/ready
	$(USB)/bin/python -m pytest tests/usb --durations=10

$(USB)/ready: pyproject.toml
	@echo "Installing into $(USB); the first time this downloads PyTorch 2.11 and USB, a few minutes."
	test -x $(USB)/bin/python || $(PYTHON) -m venv $(USB)
	$(USB)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[usb]' 'pytest>=8'
	@touch $@
