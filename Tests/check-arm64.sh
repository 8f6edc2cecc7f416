#!/usr/bin/env bash
# Builds the C kernels for 64-bit ARM as well, runs them under qemu, and compares every result with that of this machine, byte by byte:
#
#   ./Tests/check-arm64.sh
#
# All of ARM's tables are run, and the models of Tests/KernelModels. Both of NEON must give what the model of AVX-VNNI gives, which fuses the
# same operations; but bf16 where ARM has an instruction for it, whose results are near the plain ones only. Needs the Swift toolchain's clang; the linker, libraries and qemu are Debian packages.
set -euo pipefail
cd "$(dirname "$0")/.."

./compose/install-packages.sh --only gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static
clang=$(dirname "$(readlink -f "$(command -v swift)")")/clang
[ -x "$clang" ] || clang=clang
output=$(mktemp -d)
trap 'rm -rf "$output"' EXIT

# build NAME OPTION...: compiles everything into the folder NAME.
build() {
  local folder=$output/$1 source
  shift
  mkdir "$folder"
  for source in Shared/CKernels/*.c Tests/KernelModels/*.c Tests/ARM64/kernels.c; do
    "$clang" "$@" -Wall -Wextra -Werror -O2 -fno-math-errno -ffp-contract=off -pthread \
      -I Shared/CKernels -I Shared/CKernels/include -I Tests/KernelModels/include \
      -c "$source" -o "$folder/${source//\//-}.o" || return 1
  done
}
[ "$(uname -m)" != aarch64 ] || { echo "SKIP kernels on ARM: this machine is one"; echo "0 passed, 0 failed, 1 skipped"; exit 0; }
build here &
here=$! built=yes
(build there --target=aarch64-linux-gnu -isystem /usr/aarch64-linux-gnu/include) || built=no
wait $here || built=no
[ $built = yes ] || { echo "FAIL the kernels do not compile"; echo "0 passed, 1 failed, 0 skipped"; exit 1; }
"$clang" "$output"/here/*.o -o "$output/kernels" -pthread -lm
aarch64-linux-gnu-gcc -static "$output"/there/*.o -o "$output/kernels-arm64" -pthread -lm

status=0
"$output/kernels" >"$output/here.txt" || status=1
qemu-aarch64-static "$output/kernels-arm64" >"$output/there.txt" || status=1
{
  cat "$output/here.txt"
  sed -n 's/^avxvnni-model /neon /p' "$output/here.txt"
  sed -n '/ bf16 /d; s/^avxvnni-model /neonbf16 /p' "$output/here.txt"
} | sort >"$output/expected.txt"
sed '/^neonbf16 bf16 /d' "$output/there.txt" | sort >"$output/found.txt"
diff "$output/expected.txt" "$output/found.txt" >"$output/differences" || status=1
cat "$output/differences"
same=$(comm -12 "$output/expected.txt" "$output/found.txt" | wc -l)
if [ $status -eq 0 ]; then
  echo "ok   $same results are the same on x86-64 and ARM"
  echo "1 passed, 0 failed, 0 skipped"
else
  echo "FAIL only $same results are the same on x86-64 and ARM, or one is wrong"
  echo "0 passed, 1 failed, 0 skipped"
fi
exit $status
