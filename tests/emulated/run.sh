#!/usr/bin/env bash
# Runs the kernels' own tests on instructions that this machine may lack:
#   run.sh neon [FILTER…]      qemu's user mode; a minute or two after the build
#   run.sh avx512 [FILTER…]    a small Linux in Bochs, which has AVX-512 where qemu has none; half an hour or more
# A FILTER is a part of a test's name. It needs these packages of Debian 12:
#   neon      gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
#             (and `rustup target add aarch64-unknown-linux-gnu`)
#   avx512    bochs bochs-term bochsbios busybox-static cpio isolinux syslinux-common xorriso
#             (and the network: Debian's kernel is downloaded and unpacked, not installed)
# What is built lies in EMULATED_FOLDER, outside the repository.
set -euo pipefail

work=${EMULATED_FOLDER:-${TMPDIR:-/tmp}/emulated-kernels}
mkdir -p "$work"
work=$(cd "$work" && pwd)
cd "$(dirname "$0")"
# As in .ci/run: generated cases are the same in every run.
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-20261121}

# Builds the tests for a target and hands them to the target's runner. Static, so that the emulated
# system needs no libraries.
tests_for() {
    local target=$1
    shift
    local name=${target//-/_}
    export "CARGO_TARGET_${name^^}_RUSTFLAGS=-C target-feature=+crt-static"
    # The versions are the program's; cargo leaves out of the copy what the kernels do not use.
    cp ../../Cargo.lock Cargo.lock
    cargo test --target "$target" --target-dir "$work/target" -- "$@"
}

kernel() {
    [[ -f $work/vmlinuz ]] && return
    local package
    package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
    (cd "$work" && apt-get download "$package" && dpkg -x "$package"_*.deb kernel)
    cp "$work"/kernel/boot/vmlinuz-* "$work/vmlinuz"
}

# Boots a Linux whose first and only program are the tests.
in_bochs() {
    local tests=$1
    shift
    kernel
    local root=$work/root iso=$work/iso
    rm -rf "$root" "$iso"
    mkdir -p "$root"/{bin,dev,proc,tmp} "$iso/isolinux"
    cp /bin/busybox "$root/bin/"
    strip -o "$root/tests" "$tests"
    cat >"$root/init" <<END
#!/bin/busybox sh
busybox() { /bin/busybox "\$@"; }
busybox mount -t proc proc /proc
busybox mount -t devtmpfs dev /dev
busybox uname -srm
busybox grep -m 1 "model name" /proc/cpuinfo
echo cpu has: \$(busybox grep -m 1 flags /proc/cpuinfo | busybox grep -o "avx[a-z0-9_]*\|fma")
EXPECTED_INSTRUCTIONS=AVX-512 PROPTEST_RNG_SEED=$PROPTEST_RNG_SEED /tests --test-threads=1 ${*@Q}
echo "== the tests ended with \$?"
# The serial line is slower than this script.
busybox sleep 1
busybox poweroff -f
END
    chmod +x "$root/init"
    (cd "$root" && find . | cpio --quiet -o -H newc -R 0:0 | gzip -1) >"$iso/isolinux/initrd"
    cp "$work/vmlinuz" /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$iso/isolinux/"
    # Bochs 2.7 tells the size of the standard XSAVE area for that of the compacted one. Linux finds
    # that inconsistent and would go without AVX; without XSAVES and XSAVEC it uses the standard one.
    cat >"$iso/isolinux/isolinux.cfg" <<END
default tests
label tests
  kernel vmlinuz
  append initrd=initrd console=ttyS0 quiet mitigations=off tsc=unstable clearcpuid=xsaves,xsavec
END
    xorriso -as mkisofs -quiet -o "$work/boot.iso" -b isolinux/isolinux.bin \
        -no-emul-boot -boot-load-size 4 -boot-info-table "$iso"
    local serial=$work/serial.txt
    cat >"$work/bochsrc" <<END
display_library: term
cpu: model=corei7_skylake_x, count=1, ips=50000000, ignore_bad_msrs=1
memory: guest=1024, host=1024
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0: enabled=1
ata0-master: type=cdrom, path=$work/boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$serial
speaker: enabled=0
sound: waveoutdrv=dummy
clock: sync=none
log: $work/bochs.log
panic: action=fatal
END
    # Debian's Bochs has a debugger, which waits to be told to go on.
    echo c >"$work/debugger"
    : >"$serial"
    # It draws its screen on a terminal: one of its own, which nobody looks at.
    TERM=xterm script -qec "bochs -q -f '$work/bochsrc' -rc '$work/debugger'" /dev/null \
        </dev/null >"$work/screen.txt" 2>&1 &
    local bochs=$!
    # Bochs ends when its terminal is gone, not when it is asked to.
    trap "kill -KILL $bochs 2>/dev/null || true" EXIT
    # The guest's screen is a terminal too, whose name Bochs tells; it waits where nobody reads that.
    local screen=
    while [[ -z $screen ]] && kill -0 "$bochs" 2>/dev/null; do
        sleep 1
        screen=$(sed -n 's/.*connected to screen "\(.*\)".*/\1/p' "$work/screen.txt")
    done
    if [[ -n $screen ]]; then
        stty raw -F "$screen" && cat "$screen" >/dev/null 2>&1 &
    fi
    tail -n +1 -f --pid="$bochs" "$serial"
    # Bochs calls being switched off an error; what the tests said counts.
    grep -q "^== the tests ended with 0" "$serial"
}

what=${1:-}
[[ -z $what ]] || shift
case $what in
neon)
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=qemu-aarch64
    EXPECTED_INSTRUCTIONS=NEON tests_for aarch64-unknown-linux-gnu "$@"
    ;;
avx512)
    export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$PWD/run.sh in-bochs"
    tests_for x86_64-unknown-linux-gnu "$@"
    ;;
in-bochs) in_bochs "$@" ;; # cargo's runner for the former
*)
    echo "usage: run.sh neon|avx512 [FILTER…]" >&2
    exit 2
    ;;
esac
