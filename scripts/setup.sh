# shellcheck shell=bash
# Brings a fresh Debian machine to where this tree runs: system packages, .venv, native build. Sourced by the other scripts.
#
# `setup_tree EXTRA` leaves an editable install with that extra of pyproject.toml in .venv, and sets HVD_ROOT and HVD_PYTHON.
# It writes nothing outside .venv and build/, HOME included. A second run finds its stamps and returns at once.
# Where the machine lacks something that only its owner can give, the calling script ends with 3.

HVD_ROOT=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd)
HVD_VENV=$HVD_ROOT/.venv
HVD_PYTHON=$HVD_VENV/bin/python

# Every Debian package this tree may install: need | package | how to see that it is there | what it is for.
HVD_PACKAGES=(
    "required|python3|has_python|runs everything; 3.11 or newer, as in Debian 12"
    "required|python3-venv|has_venv|creates the virtual environment .venv"
    "required|python3-dev|has_python_headers|Python.h, for the native module"
    "required|g++|has_compiler|compiles the native module and its tests; brings gcc, libc's headers and the sanitizers"
    "optional|libseccomp2|has_libseccomp|compiles the domains' system call filters; without it the layer seccomp is lacking"
    "optional|libxen-dev|has_xen_headers|Xen's ring.h: without it the tests that compare our rings with Xen's are skipped"
    "optional|xenstore-utils|has_xenstore_tools|Xen's store clients: without them the tests that use them on our store are skipped"
    "optional|curl|has_curl|a client of tests in which real programs are guests; without any one of these its tests are skipped"
    "optional|iputils-ping|has_ping|the same"
    "optional|iperf3|has_iperf3|the same"
    "optional|tcpdump|has_tcpdump|the same"
    "optional|dnsmasq-base|has_dnsmasq|the same, a DHCP server"
    "optional|udhcpc|has_udhcpc|the same, a DHCP client"
    "fuzz|clang|has_clang|compiles the native fuzz targets; only scripts/fuzz.sh asks for it"
    "fuzz|libclang-rt-dev|has_libfuzzer|libFuzzer and clang's sanitizers; only scripts/fuzz.sh asks for it"
)

has_python() { [ -n "$HVD_BASE_PYTHON" ]; }
has_venv() { has_python && [[ $HVD_BASE_PYTHON_LACKS != *venv* ]]; }
has_python_headers() { has_python && [[ $HVD_BASE_PYTHON_LACKS != *dev* ]]; }
has_compiler() { command -v g++ >/dev/null; }
has_libseccomp() { "$HVD_BASE_PYTHON" -SEc 'import ctypes; ctypes.CDLL("libseccomp.so.2")' 2>/dev/null; }
has_xen_headers() { [ -e /usr/include/xen/io/ring.h ]; }
has_curl() { command -v curl >/dev/null; }
has_ping() { command -v ping >/dev/null; }
has_iperf3() { command -v iperf3 >/dev/null; }
has_tcpdump() { has_in_sbin tcpdump; }
has_dnsmasq() { has_in_sbin dnsmasq; }
has_udhcpc() { has_in_sbin udhcpc; }
has_in_sbin() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null; } # a user's PATH may be without
has_clang() { [[ $'\n'$(compgen -c clang++)$'\n' =~ $'\n'clang\+\+(-[0-9]*)?$'\n' ]]; }
has_libfuzzer() { compgen -G '/usr/lib/llvm-*/lib/clang/*/lib/*/libclang_rt.fuzzer*' >/dev/null; }
has_xenstore_tools() { command -v xenstore-ls >/dev/null; }

# Xen's own daemon, for tests: unpacked below build/, since what Debian installs with it is a hypervisor's.
HVD_XEN_UTILS_PACKAGE=xen-utils-4.17
HVD_XEN_UTILS=${HVD_XEN_UTILS:-$HVD_ROOT/build/xen-utils/usr/lib/xen-4.17/bin}
has_xen_utils() { # no pipe into `grep -q`: it ends at its first match, and under pipefail ldd's SIGPIPE would hide that
    local libraries
    [ -x "$HVD_XEN_UTILS/xenstored" ] && libraries=$(ldd "$HVD_XEN_UTILS/xenstored") && [[ $libraries != *'not found'* ]]
}

say() { printf '%s: %s\n' "$(basename -- "$0")" "$*" >&2; }

timed() { # timed WHAT COMMAND...: the command between two lines of progress
    local what=$1 start=$SECONDS
    shift
    say "$what ..."
    "$@" || return
    say "$what: $((SECONDS - start)) s"
}

# Prints which of Debian's python3-venv and python3-dev an interpreter lacks; fails where it is none, or too old.
lacks_of_python() {
    command -v "$1" >/dev/null && "$1" -SEI - 2>/dev/null <<'PYTHON'
import importlib.util, os, sys, sysconfig
if importlib.util.find_spec("ensurepip") is None:
    print("venv")
if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    print("dev")
sys.exit(sys.version_info < (3, 11))
PYTHON
}

# The interpreter of .venv while it lives, else the first that is complete, else the last one found, which apt completes.
find_python() {
    local candidate lacks
    HVD_BASE_PYTHON= HVD_BASE_PYTHON_LACKS=
    for candidate in "$HVD_PYTHON" ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
        lacks=$(lacks_of_python "$candidate") || continue
        HVD_BASE_PYTHON=$candidate HVD_BASE_PYTHON_LACKS=$lacks
        [ -n "$lacks" ] || return 0
    done
}

# Prints "package|what it is for" for every package of this need that the machine lacks.
packages_missing() {
    local row need package probe purpose
    for row in "${HVD_PACKAGES[@]}"; do
        IFS='|' read -r need package probe purpose <<<"$row"
        [ "$need" = "$1" ] && ! "$probe" && printf '%s|%s\n' "$package" "$purpose"
    done
    return 0
}

apt() {
    mkdir -p "$HVD_ROOT/build"
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 "$@" >"$HVD_ROOT/build/apt.log" 2>&1 ||
        { tail -n 5 "$HVD_ROOT/build/apt.log" >&2; return 1; }
}

apt_install() {
    if [ -z "${HVD_APT_LISTS_FRESH:-}" ]; then
        HVD_APT_LISTS_FRESH=yes
        timed "apt-get update" apt update || say "apt-get update failed; the lists at hand must do"
    fi
    timed "apt-get install $*" apt install --yes --no-install-recommends "$@" || say "apt-get install failed"
}

# As root installs what the machine lacks of this need; leaves what is missing all the same in HVD_MISSING.
complete_packages() {
    local need=$1 package purpose packages=()
    HVD_MISSING=$(packages_missing "$need")
    [ -n "$HVD_MISSING" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 0
    while IFS='|' read -r package purpose; do
        say "missing: $package ($purpose)"
        packages+=("$package")
    done <<<"$HVD_MISSING"
    apt_install "${packages[@]}"
    hash -r
    find_python
    HVD_MISSING=$(packages_missing "$need")
}

setup_packages() { # setup_packages EXTRA
    local package purpose packages=()
    find_python
    complete_packages required
    if [ -n "$HVD_MISSING" ]; then
        while IFS='|' read -r package purpose; do
            say "not on this machine: $package ($purpose)"
            packages+=("$package")
        done <<<"$HVD_MISSING"
        say "it cannot be done without; install it with"
        printf '    sudo apt-get install %s\n' "${packages[*]}" >&2
        exit 3
    fi
    complete_packages optional
    report_missing
    if [ "$1" = fuzz ]; then
        complete_packages fuzz
        report_missing
    fi
}

# As any user, and nothing is installed. Asked for once a set-up: without a network it is said, and no more.
unpack_xen_utils() {
    local whole=$HVD_ROOT/build/xen-utils
    ! has_xen_utils || return 0
    if has_xen_headers && command -v apt-get >/dev/null && command -v dpkg >/dev/null &&
        timed "$HVD_XEN_UTILS_PACKAGE (apt-get download)" unpack_xen_utils_into "$whole.new"; then
        rm -rf -- "$whole"
        mv -- "$whole.new" "$whole"
    else
        rm -rf -- "$whole.new"
    fi
    has_xen_utils || say "not on this machine: $HVD_XEN_UTILS_PACKAGE (Xen's own xenstored: the tests that need it are skipped)"
}

unpack_xen_utils_into() (
    rm -rf -- "$1" && mkdir -p -- "$1" && cd -- "$1" || exit
    apt-get -o Acquire::Retries=0 -o Acquire::http::Timeout=10 download "$HVD_XEN_UTILS_PACKAGE" >../apt.log 2>&1 &&
        dpkg -x "$HVD_XEN_UTILS_PACKAGE"_*.deb . && rm -- "$HVD_XEN_UTILS_PACKAGE"_*.deb
)

report_missing() {
    local package purpose
    [ -z "$HVD_MISSING" ] || while IFS='|' read -r package purpose; do
        say "not on this machine: $package ($purpose)"
    done <<<"$HVD_MISSING"
}

# Changes whenever the install in .venv has to be made again.
digest_of_sources() {
    (
        cd -- "$HVD_ROOT" || exit
        { printf '%s\0' pyproject.toml CMakeLists.txt; find transport/native -type f -print0 | sort -z; } |
            xargs -0 sha256sum | sha256sum | cut -d' ' -f1
    )
}

same_text() { [ "$(cat -- "$1" 2>/dev/null)" = "$2" ]; }

pip_install() { "$HVD_PYTHON" -m pip install --quiet "$@"; }

make_venv() {
    # A virtual environment and a CMake cache hold absolute paths: in a tree that was moved they are worth nothing.
    if [ -e "$HVD_VENV/tree" ] && ! same_text "$HVD_VENV/tree" "$HVD_ROOT"; then
        rm -rf -- "$HVD_VENV" "$HVD_ROOT/build"
        find_python
    fi
    if [ "$HVD_BASE_PYTHON" != "$HVD_PYTHON" ] || ! "$HVD_PYTHON" -m pip --version >/dev/null 2>&1; then
        timed "virtual environment with $HVD_BASE_PYTHON" "$HVD_BASE_PYTHON" -m venv --clear "$HVD_VENV" || return
    fi
    printf '%s\n' "$HVD_ROOT" >"$HVD_VENV/tree"
}

# Without build isolation: CMake's cache stays good from one build to the next, and a rebuild needs no network.
install_build_tools() {
    local requires
    mapfile -t requires < <("$HVD_PYTHON" -c '
import tomllib
print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")')
    pip_install "${requires[@]}" || return
    mapfile -t requires < <("$HVD_PYTHON" -c '
from scikit_build_core.build import get_requires_for_build_editable
print(*get_requires_for_build_editable({}), sep="\n")') # cmake and ninja, where the machine has none
    [ -z "${requires[*]}" ] || pip_install "${requires[@]}"
}

install_tree() {
    local extra=$1 digest=$2
    make_venv || return
    if ! same_text "$HVD_VENV/built" "$digest"; then
        timed "build tools (pip)" install_build_tools || return
        timed "native module and Python packages (CMake, pip)" \
            pip_install --no-build-isolation --editable ".[$extra]" || return
        printf '%s\n' "$digest" >"$HVD_VENV/built"
    else
        timed "Python packages for '$extra' (pip)" pip_install "hvd[$extra]" || return
    fi
    compile_dependencies || say "what commands load of these packages could not all be compiled: they start later for it"
    printf '%s\n' "$digest" >"$HVD_VENV/extra-$extra"
}

# pip puts bytecode where PYTHONPYCACHEPREFIX says, for the scripts. This is for whoever calls .venv/bin/hvd where Python may write
# none: each command would compile what it loads anew, 0.1 s of it. What finds this tree's packages, which every Python here loads
# first, pip compiles for nobody: 7 ms of each.
compile_dependencies() {
    local site
    site=$("$HVD_PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))') || return
    "$HVD_PYTHON" -m compileall -q "$site"/_editable_*.py || return
    env -u PYTHONPYCACHEPREFIX "$HVD_PYTHON" -m compileall -q "$site"/{msgpack,rich,structlog,typer,zmq} "$site"/_editable_*.py
}

setup_tree() {
    local extra=$1 digest lock
    unset PYTHONHOME PYTHONPATH
    export PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONPYCACHEPREFIX=$HVD_ROOT/build/pycache
    [ -n "${PIP_CACHE_DIR:-}" ] || export PIP_NO_CACHE_DIR=1
    exec {lock}<"$HVD_ROOT/pyproject.toml"
    flock --nonblock "$lock" || timed "another setup of this tree is running" flock "$lock"
    setup_packages "$extra"
    digest=$(digest_of_sources)
    if ! same_text "$HVD_VENV/tree" "$HVD_ROOT" || ! same_text "$HVD_VENV/built" "$digest" ||
        ! same_text "$HVD_VENV/extra-$extra" "$digest"; then
        (cd -- "$HVD_ROOT" && install_tree "$extra" "$digest") ||
            { say "setup failed; the first one needs a network"; exit 1; }
        [ "$extra" != test ] || unpack_xen_utils
    fi
    exec {lock}<&-
}
