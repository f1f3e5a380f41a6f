# make run    set up and start the server         make test   set up and run the whole test suite
# make demo   set up, start a server, talk to it  make check  all that CI checks
.PHONY: run test demo check lint types imports bench fuzz abuse simulate badlink soak clean

run:
	@scripts/setup.sh run
	@.venv/bin/mynah serve $(ARGS)

demo:
	@scripts/setup.sh run
	@.venv/bin/mynah demo $(ARGS)

test:
	@scripts/setup.sh dev
	.venv/bin/pytest -n auto $(ARGS)

check: test lint types imports

lint:
	@scripts/setup.sh dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types:
	@scripts/setup.sh dev
	.venv/bin/mypy

imports:
	@scripts/setup.sh dev
	.venv/bin/lint-imports --no-cache

bench:
	@scripts/setup.sh run
	.venv/bin/mynah bench $(ARGS)

# Damaged input for every decoder, and clients that misbehave while others talk; the test suite runs a little of both.
fuzz:
	@scripts/setup.sh dev
	.venv/bin/python -m tests.fuzz $(ARGS)

abuse:
	@scripts/setup.sh dev
	.venv/bin/python -m tests.chaos $(ARGS)

# Ten thousand conversations by chance and hundreds of scripted ones, on virtual time.
simulate:
	@scripts/setup.sh dev
	.venv/bin/python -m tests.simulation $(ARGS)

# Devices that fetch their answers over a bad mobile link: 1 000 turns, and an accelerated day.
badlink:
	@scripts/setup.sh dev
	.venv/bin/python -m tests.badlink $(ARGS)

soak:
	@scripts/setup.sh dev
	.venv/bin/python -m tests.badlink --devices 100 --turns 6000 $(ARGS)

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
