# `make` alone says what there is. Everything is made from nothing on first use; bootstrap/ says how.

PYTHON ?= python3
STACK ?= local
export STACK PYTHON

BOOTSTRAP := $(PYTHON) -m bootstrap
TOOLS := $(BOOTSTRAP) --development run
WITH_TOOLS := $(TOOLS) python -m
LOCK := $(WITH_TOOLS) uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help up preview status report restore-drill keys drift destroy reap vault bench check test test-unit soak lock audit clean

help: ## show this help
	@echo "make TARGET [STACK=local] [PYTHON=python3]"
	@sed -n 's/^\([a-z-]*\): ## /\1\t/p' $(MAKEFILE_LIST) | while IFS="	" read -r target what; do printf '  %-13s %s\n' "$$target" "$$what"; done
	@echo "For pulumi by hand: . ./env.sh"

up: ## from nothing to a primary and a streaming standby; run again, it repairs, or does nothing; with REVIEWED=, only the plan of that digest
	@$(BOOTSTRAP) up

preview: ## show what `make up` would change
	@$(BOOTSTRAP) preview

status: ## show how the cluster is now, asked from its servers; ARGS=--watch shows it until Ctrl-C
	@$(BOOTSTRAP) run python -m tde_replication.status $(ARGS)

report: ## write how the cluster is now as an HTML page for others: PAGE=report-STACK.html; with DRIFT=1, what was changed by hand too
	@$(BOOTSTRAP) run python -m tde_replication.report $(if $(filter-out 0,$(DRIFT)),--drift) $(ARGS) $(or $(PAGE),report-$(STACK).html)

keys: ## list which principal keys open which data, data set aside too, and whether Vault has them; BACKUPS="base.tar …" looks at these too
	@$(BOOTSTRAP) run python -m tde_replication.needed_keys $(ARGS) $(BACKUPS)

restore-drill: ## restore the newest backup on one of the servers, read all of it, and remove it; ends with 1 if that failed
	@$(BOOTSTRAP) run python -m tde_replication.restore_drill $(ARGS)

drift: ## show whether anything was changed behind Pulumi's back; ends with 7 if so, with 8 if not everything could be checked
	@$(BOOTSTRAP) drift

destroy: ## take the stack away, and for STACK=local its Vault with all it holds
	@$(BOOTSTRAP) destroy

reap: ## destroy the stacks that have expired: those that are disposable and have a time of expiry
	@$(BOOTSTRAP) reap

vault: ## start the Vault of stack local (part of `make up`); does nothing where VAULT_ADDR is yours
	@$(BOOTSTRAP) vault

bench: ## measure it against plain commands that do the same work
	@$(WITH_TOOLS) benchmarks

check: ## lint, format, types; the workflows too
	@$(WITH_TOOLS) ruff check
	@$(WITH_TOOLS) ruff format --check
	@$(WITH_TOOLS) mypy --explicit-package-bases .
	@$(TOOLS) zizmor --offline --quiet .github
	@$(WITH_TOOLS) bootstrap.actionlint

test: ## all tests but those of `make soak`, from nothing
	@$(WITH_TOOLS) pytest -n auto --no-loadscope-reorder

test-unit: ## the tests that need neither an engine nor a server: under a minute
	@$(WITH_TOOLS) pytest -q -n auto tests/unit tests/graph

soak: ## the tests that take long, marked soak
	@$(WITH_TOOLS) pytest -m soak

lock: ## resolve every requirements*.in again into its requirements*.txt, with hashes
	@$(LOCK) requirements.in --output-file requirements.txt
	@$(LOCK) requirements-dev.in --constraints requirements.txt --output-file requirements-dev.txt
	@$(LOCK) benchmarks/requirements.in --constraints requirements-dev.txt --output-file benchmarks/requirements.txt
	@$(LOCK) policies/requirements.in --output-file policies/requirements.txt

audit: ## look the locked packages up in the database of known vulnerabilities
	@$(WITH_TOOLS) bootstrap.audit

clean: ## remove the virtual environment and the engine; after `make destroy`
	@$(BOOTSTRAP) clean
