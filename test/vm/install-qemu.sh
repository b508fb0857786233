#!/bin/sh
# Unpacks what the virtual machines with BPF-LSM are made of into a cache outside the tree: QEMU with its
# libraries, a static busybox, and Debian 12's kernels 6.1 and 6.12 with the modules that a machine needs.
# Nothing is installed on the host. Prints the directory on the last line; quick when nothing is missing.
# A kernel that cannot be had is left out, and a file beside the others says why.
set -eu

name=vm-qemu
# shellcheck disable=SC2034 # read by fetch.sh
layout=2
# shellcheck source=test/vm/fetch.sh
. "$(dirname "$0")/fetch.sh"

# In the order in which they are loaded; those that a kernel has built in are not there as files.
boot_modules='virtio_pci_legacy_dev virtio_pci_modern_dev virtio_ring virtio virtio_pci netfs fscache
9pnet 9pnet_virtio 9p overlay'
# What clawsec itself uses: nftables.
more_modules='crc32c_generic libcrc32c nfnetlink nf_tables nf_defrag_ipv4 nf_defrag_ipv6 nf_conntrack nft_ct
nf_reject_ipv4 nf_reject_ipv6 nft_reject nft_reject_inet nft_objref'

# The uncompressed kernel, cut out of the bzImage (Documentation/arch/x86/boot.rst): QEMU boots it by PVH, some
# seconds faster. The payload's last four bytes are its size.
cut_kernel() { # IMAGE TARGET
    word() { od -An -t"u$2" -j "$1" -N "$2" "$image" | tr -d ' '; }
    image=$1
    start=$((($(word 497 1) + 1) * 512 + $(word 584 4)))
    size=$(($(word 588 4) - 4))
    case $(od -An -tx1 -j "$start" -N 4 "$image" | tr -d ' ') in
        fd377a58) unpack='xz -dc' ;;
        28b52ffd) unpack='zstd -dc' ;;
        *) fail "the kernel $image is packed in a way that is not known here" "report its name" ;;
    esac
    tail -c "+$((start + 1))" "$image" | head -c "$size" | $unpack >"$2"
}

# Copies a module, unpacked, as FOLDER/NUMBER-NAME.ko, if the kernel has it as a module.
take_modules() { # TREE FOLDER NAME...
    tree=$1 folder=$2
    shift 2
    number=10
    for module; do
        file=$(find "$tree" -name "$module.ko" -o -name "$module.ko.xz" -o -name "$(printf %s "$module" | tr _ -).ko.xz")
        case $file in
            '') continue ;;
            *.xz) xz -dc "$file" >"$folder/$number-$module.ko" ;;
            *) cp "$file" "$folder/$number-$module.ko" ;;
        esac
        number=$((number + 1))
    done
}

# vmlinux, initrd and modules of one kernel, in a folder with its version's name.
take_kernel() { # VERSION METAPACKAGE
    version=$1
    package=$(apt-cache depends "$2" 2>/dev/null | awk '$1 == "Depends:" { print $2; exit }')
    if [ -z "$package" ]; then
        printf '%s\n' "apt knows no Linux $version (package $2)" >"$tmp/no-$version"
        say "$(cat "$tmp/no-$version"); its checks will be skipped"
        return 0
    fi
    fetch "$package"
    mkdir -p "$tmp/$version/modules" "$tmp/initrd/modules"
    cut_kernel "$(echo "$tmp"/unpacked/boot/vmlinuz-*)" "$tmp/$version/vmlinux"
    # shellcheck disable=SC2086 # words
    take_modules "$tmp/unpacked" "$tmp/initrd/modules" $boot_modules
    # shellcheck disable=SC2086 # words
    take_modules "$tmp/unpacked" "$tmp/$version/modules" $more_modules
    cp "$tmp/busybox" "$here/initrd-init.sh" "$tmp/initrd/"
    mv "$tmp/initrd/initrd-init.sh" "$tmp/initrd/init"
    chmod 0755 "$tmp/initrd/init"
    mkdir "$tmp/initrd/proc" "$tmp/initrd/host" "$tmp/initrd/control" "$tmp/initrd/root"
    (cd "$tmp/initrd" && find . | "$tmp/busybox" cpio -o -H newc 2>/dev/null) | gzip -1 >"$tmp/$version/initrd"
    rm -rf "$tmp/unpacked" "$tmp/initrd"
    mkdir "$tmp/unpacked"
}

here=$(cd "$(dirname "$0")" && pwd)
stop_if_complete
for tool in xz zstd; do
    command -v $tool >/dev/null || fail "$tool was not found, and a kernel is packed with it" \
        "apt-get install xz-utils zstd"
done
make_temporary
# The libraries are those that a Debian without a desktop may lack.
fetch busybox-static qemu-system-x86 qemu-system-common qemu-system-data seabios \
    libaio1 libcapstone4 libdaxctl1 libfdt1 libfuse3-3 libglib2.0-0 libibverbs1 libjpeg62-turbo libkmod2 \
    libndctl6 libnl-3-200 libnl-route-3-200 libnuma1 libpixman-1-0 libpmem1 libpng16-16 librdmacm1 libsasl2-2 \
    libslirp0 liburing2 libvdeplug2
mkdir "$tmp/lib" "$tmp/share"
mv "$tmp/unpacked/bin/busybox" "$tmp/busybox"
mv "$tmp/unpacked/usr/bin/qemu-system-x86_64" "$tmp/qemu"
# The emulation is a module; the others are devices of a desktop.
mv "$tmp"/unpacked/usr/lib/*/qemu/accel-tcg-x86_64.so "$tmp/lib/"
rm -r "$tmp"/unpacked/usr/lib/*/qemu
find "$tmp/unpacked" -name '*.so*' -exec cp -P '{}' "$tmp/lib/" ';'
for file in share/seabios/bios-256k.bin share/qemu/pvh.bin share/qemu/kvmvapic.bin share/qemu/linuxboot_dma.bin; do
    mv "$tmp/unpacked/usr/$file" "$tmp/share/"
done
LD_LIBRARY_PATH=$tmp/lib "$tmp/qemu" --version >/dev/null || fail "QEMU does not run here" "see its message above"
rm -rf "$tmp/unpacked"
mkdir "$tmp/unpacked"
take_kernel 6.1 linux-image-amd64
take_kernel 6.12 linux-image-6.12-amd64
finish
