// sandbox.hpp for Python, without logic of its own: OSError where the kernel refuses.
#include "bindings.hpp"
#include "sandbox.hpp"

namespace hvd {

void bind_sandbox(nb::module_& m) {
    using namespace nb::literals;
    m.def("make_mounts_private", [] { checked(sandbox::make_mounts_private()); });
    m.def("make_mounts_followers", [] { checked(sandbox::make_mounts_followers()); });
    m.def("mount_tmpfs", [](const char* where, const char* options) { checked(sandbox::mount_tmpfs(where, options)); },
          "where"_a, "options"_a);
    m.def(
        "mount_new",
        [](const char* kind, const char* where, const char* options) { checked(sandbox::mount_new(kind, where, options)); },
        "kind"_a, "where"_a, "options"_a);
    m.def("mount_scratch", [](const char* where, const char* options) { checked(sandbox::mount_scratch(where, options)); },
          "where"_a, "options"_a);
    m.def("leave_namespaces", [](int flags) { checked(sandbox::leave_namespaces(flags)); }, "flags"_a);
    m.def(
        "enter_namespace", [](int descriptor, int kind) { checked(sandbox::enter_namespace(descriptor, kind)); },
        "descriptor"_a, "kind"_a);
    m.def(
        "enter_mounts", [](int descriptor, int root) { checked(sandbox::enter_mounts(descriptor, root)); },
        "descriptor"_a, "root"_a);
    m.def("clone_tree", [](const char* source) { return checked(sandbox::clone_tree(source)); }, "source"_a);
    m.def(
        "place_tree",
        [](int tree, const char* target, std::uint64_t attributes, int userns_fd) {
            checked(sandbox::place_tree(tree, target, attributes, userns_fd));
        },
        "tree"_a, "target"_a, "attributes"_a, "userns_fd"_a = -1);
    m.def(
        "bind_mount",
        [](const char* source, const char* target, std::uint64_t attributes) {
            checked(sandbox::bind_mount(source, target, attributes));
        },
        "source"_a, "target"_a, "attributes"_a);
    m.def(
        "set_mount_attributes",
        [](const char* where, std::uint64_t attributes) { checked(sandbox::set_mount_attributes(where, attributes)); },
        "where"_a, "attributes"_a);
    m.def("enter_root", [](const char* root) { checked(sandbox::enter_root(root)); }, "root"_a);
    m.def("detach_mount", [](const char* where) { checked(sandbox::detach_mount(where)); }, "where"_a);
    m.def("make_user_namespace", [](unsigned owner) { return checked(sandbox::make_user_namespace(owner)); }, "owner"_a);
    m.def("no_new_privileges", [] { checked(sandbox::no_new_privileges()); });
    m.def("set_dumpable", [](bool dumpable) { checked(sandbox::set_dumpable(dumpable)); }, "dumpable"_a);
    m.def("drop_bounding_set", [](std::uint64_t kept) { checked(sandbox::drop_bounding_set(kept)); }, "kept"_a = 0);
    m.def("drop_capabilities", [](std::uint64_t kept) { checked(sandbox::drop_capabilities(kept)); }, "kept"_a = 0);
    m.def("has_capability", [](unsigned number) { return checked(sandbox::has_capability(number)) != 0; }, "number"_a);
    m.def("landlock_abi", [] { return checked(sandbox::landlock_abi()); });
    m.def(
        "landlock_create",
        [](std::uint64_t fs, std::uint64_t net, std::uint64_t scoped, std::size_t size) {
            return checked(sandbox::landlock_create(fs, net, scoped, size));
        },
        "fs"_a, "net"_a, "scoped"_a, "size"_a);
    m.def(
        "landlock_allow",
        [](int ruleset, const char* path, std::uint64_t access) {
            checked(sandbox::landlock_allow(ruleset, path, access));
        },
        "ruleset"_a, "path"_a, "access"_a);
    m.def("landlock_restrict", [](int ruleset) { checked(sandbox::landlock_restrict(ruleset)); }, "ruleset"_a);
    m.def(
        "seccomp_install",
        [](const nb::bytes& program) {
            checked(sandbox::seccomp_install(static_cast<const std::byte*>(program.data()), program.size()));
        },
        "program"_a);
}

}  // namespace hvd
