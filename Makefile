# Everything happens inside the checkout: the virtualenv in .venv, data in var/.
PYTHON ?= python3
PORT ?= 8000
# The tests wait more than they work, so more processes than cores.
TEST_PROCESSES ?= 4
SANDBOX_PORT ?= 8100
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PORT SANDBOX_PORT

.DEFAULT_GOAL := help
.PHONY: help install run test lint messages bench shell lock clean

help:
	@grep -E '^[a-z]+:.*#' $(MAKEFILE_LIST) | sed -E 's/:[^#]*# / /' | awk '{name=$$1; $$1=""; printf "make %-8s%s\n", name, $$0}'

install: $(VENV)/.installed # the virtualenv with every pinned package

$(VENV)/.installed: requirements/dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	touch $@

# Exported, not set before the command: a shell in between would keep a signal from honcho.
run: export SANDBOX_WEBHOOK_URL ?= http://127.0.0.1:$(PORT)/webhooks/codat
# honcho gives each program a PORT of its own; the worker writes mails with links to the first's.
run: export SITE_URL ?= http://localhost:$(PORT)
run: install .env # web, worker and stand-in Codat; prints the address and the demo logins
	python manage.py migrate --verbosity 0
	python manage.py setup
	honcho start --port $(PORT)

# So that `python manage.py ...` in another shell knows the demo too. Never overwritten.
.env:
	@printf '# Made by make run. Every variable: .env.example\nENVIRONMENT=demo\n' > $@

test: install # the whole suite
	pytest -n $(TEST_PROCESSES) --dist worksteal $(PYTEST_ARGS)

lint: install # style, types, known vulnerabilities, translations, migrations, deployment settings
	ruff check .
	ruff format --check .
	mypy
	# Of low severity ruff's S rules ask about every line; these are the others.
	bandit --quiet --recursive --configfile pyproject.toml --severity-level medium backoffice feeds
	python requirements/audit.py requirements/prod.txt
	python -m tests.catalogue --check
	ENVIRONMENT=test python manage.py makemigrations --check --dry-run
	env $(PRODUCTION_EXAMPLE) python manage.py check --deploy --fail-level WARNING

messages: install # update and compile the French catalogue, and list what is not translated
	python -m tests.catalogue

bench: install # timings, as a table; never part of the tests
	python -m tests.bench

shell: install .env # Django's shell on the demo data
	python manage.py shell

lock: install # compile requirements/*.in to hash-checked lock files
	for name in base prod dev; do \
	  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes requirements/$$name.in -o requirements/$$name.txt; \
	done

clean: # remove the virtualenv and all data
	rm -rf $(VENV) var

# Invented values, good enough for `check --deploy` to judge the settings by.
PRODUCTION_EXAMPLE := ENVIRONMENT=production \
	SECRET_KEY=only-for-check-deploy-0123456789-abcdefghijklmnopqrstuvwxyz-ABCDEF \
	ALLOWED_HOSTS=backoffice.example.com CODAT_API_KEY=only-for-check-deploy \
	WEBHOOK_SECRETS=whsec_b25seS1mb3ItY2hlY2stZGVwbG95 \
	DATABASE_URL=postgres://backoffice@db.example.com/backoffice EMAIL_URL=smtp://mail.example.com \
	SITE_URL=https://backoffice.example.com CASE_NOTIFY_TO=support@example.com \
	AUDIT_SEAL_TO=mailto:audit@example.com \
	INSTITUTION_NAME=Example INSTITUTION_PHONE=+1-555-0100
