# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# What the scripts that build packages have in common: for them to source. They set top to the
# directory of the tree, and log to the file for what only those need who look for an error.
# shellcheck disable=SC2154

program=$(basename "$0")

say() {
	printf '%s: %s\n' "$program" "$*"
}

fail() {
	printf '%s: %s\n' "$program" "$*" >&2
	exit 1
}

as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		fail "not root, and there is no sudo. As root, run: $*"
	fi
}

# quietly COMMAND...: its output goes into the file $log, for those who need it
quietly() {
	"$@" >>"$log" 2>&1 </dev/null && return
	tail -n 50 "$log" >&2
	fail "this failed, and $log says why: $*"
}

# Git's own answer also where the tree belongs to somebody else
git_here() {
	git -c safe.directory="$top" -C "$top" "$@" 2>/dev/null
}

git_knows_it() {
	[ "$(git_here rev-parse --show-toplevel)" = "$top" ]
}

# Names, each ended by a NUL. One that was removed and not committed is not there to be taken
list_files() {
	local name
	if git_knows_it; then
		git_here ls-files -z --cached --others --exclude-standard |
			while IFS= read -r -d '' name; do
				if [ -e "$top/$name" ] || [ -L "$top/$name" ]; then
					printf '%s\0' "$name"
				fi
			done
	else
		(cd "$top" && find . \( -path './build*' -o -path ./packaging/out -o -name .git \
			-o -name __pycache__ -o -name .pytest_cache \) -prune -o ! -type d -print0)
	fi
}

# The time of the commit, or else of the newest file
source_date() {
	if [ "${SOURCE_DATE_EPOCH-}" ]; then
		echo "$SOURCE_DATE_EPOCH"
	elif git_knows_it; then
		git_here log -1 --format=%ct
	else
		list_files | (cd "$top" && xargs -0 stat -c %Y) | sort -n | tail -n 1
	fi
}

# project_version TREE
project_version() {
	sed -n "s/^ *version *: *'\([^']*\)'.*/\1/p" "$1/meson.build" | head -n 1
}

# set_project_version TREE VERSION
set_project_version() {
	if [ "$(project_version "$1")" != "$2" ]; then
		sed -i "0,/^\( *version *: *\)'[^']*'/s//\1'$2'/" "$1/meson.build"
	fi
}

# export_files TREE: copies the tree there. Modes are the same with whatever umask it was
# checked out; the times are for the caller to set, when it has changed what it changes.
export_files() {
	mkdir -p "$1"
	list_files | tar -C "$top" --no-recursion --null -T - -cf - | tar -C "$1" -xf -
	chmod -R u=rwX,go=rX "$1"
}
