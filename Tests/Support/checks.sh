# For shell scripts that test: counts in `passed` and `failed`. Needs `say`, which prints a line for people.
passed=0
failed=0

# check NAME COMMAND...: counts whether the command succeeds.
check() {
  local name=$1
  shift
  if "$@"; then
    passed=$((passed + 1)) && echo "ok   $name"
  else
    failed=$((failed + 1)) && echo "FAIL $name"
  fi
}

not() { ! "$@" >/dev/null 2>&1; }
quietly() { "$@" >/dev/null; }

# within SECONDS COMMAND...: waits until the command succeeds.
within() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || { say "still not so: $*"; return 1; }
    sleep 0.3
  done
}
