# Sourced after lib.sh: get_tree sets `tree` to a folder with a real source tree (git's; a generated one of the same shape
# when it cannot be had) and `name` to what it is. Kept under the build directory for the scripts that follow.
# generate_tree DIR PARTS: a tree of 75 files in each part, 4 of them C; prints where.
generate_tree() {
    mkdir -p "$1/generated"
    python3 - "$1/generated" "$2" <<'P'
import os, random, sys
rng = random.Random(1)
root = sys.argv[1]
units = []
for d in range(int(sys.argv[2])):
    folder = f"{root}/part{d}"
    os.makedirs(folder)
    for f in range(75):
        body = "".join(f"int f{d}_{f}_{k}(int x) {{ return x * {rng.randrange(99)} + {k}; }}\n"
                       for k in range(rng.randrange(1, 40)))
        name = f"{folder}/unit{f}.c" if f < 4 else f"{folder}/file{f}.txt"
        units += [name] if f < 4 else []
        with open(name, "w") as file:
            file.write(body)
objects = " ".join(os.path.relpath(u, root)[:-2] + ".o" for u in units)
with open(f"{root}/Makefile", "w") as file:
    file.write(f"git: {objects}\n\tld -r -o git $^\n%.o: %.c\n\t$(CC) $(CFLAGS) -c -o $@ $<\n"
               f"clean:\n\trm -f git {objects}\n")
P
    echo "$1/generated"
}

# get_tree [COMMAND...]: the command, such as `outside`, runs what fetches it.
get_tree() {
    local kept=$B/source
    mkdir -p "$kept"
    tree=$(ls -d "$kept"/git* 2>/dev/null | head -n 1)
    name="git's source"
    [ -n "$tree" ] && return
    if tree=$("$@" tools/fetch-source git "$kept/new" 2>"$T/fetch.log"); then
        mv "$tree" "$kept/"
        tree=$kept/$(basename "$tree")
        rm -rf "$kept/new"
    else
        tree=$(generate_tree "$T/src" 60)
        name="a generated tree"
    fi
}
