"""The commands of git that only look, with their options.

git reads the configuration of the repository that it is run in, and that may name programs: for a pager, a file system
monitor, a comparison. So it is harmless only in the folder of the tool, whose configuration is the user's. Options that
run a program or write a file by themselves (``--ext-diff``, ``--output``, ``-O``, ``-c``) are not listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agentloop.toolkit._harmless_options import Given, Places, Program, check_program
from agentloop.toolkit._shell_parser import NotKnownError, Word, unmarked

__all__ = ["check_git"]

_LOOK = (
    "--oneline --graph --decorate --no-decorate --all --stat --shortstat --numstat --name-only --name-status"
    " --summary --patch -p -u --cached --staged --no-color --color --abbrev-commit --no-abbrev-commit --abbrev --pretty"
    " --reverse --first-parent --merges --no-merges --follow -i -E -F -P -w -b --ignore-all-space"
    " --ignore-space-change --ignore-blank-lines --word-diff --color-words --no-ext-diff --no-textconv --minimal"
    " --histogram --patience -M -C -R --find-renames --find-copies --no-renames --relative --exit-code --quiet -q"
    " --check --raw --left-right --cherry-pick --cherry --boundary --topo-order --date-order --author-date-order"
    " --branches --tags --remotes --no-walk --no-patch -s --parents --children --full-history --simplify-merges"
    " --source --full-index --patch-with-stat --dirstat --compact-summary -c --cc -m -z --merge-base --count"
    " --pickaxe-regex --regexp-ignore-case --extended-regexp --fixed-strings --perl-regexp --invert-grep --all-match"
    " --walk-reflogs -g --show-pulls --objects --no-notes"
)
_LOOK_FOR = (
    "-U --unified --format --date --since --until --after --before --author --committer --grep --max-count"
    " --skip --diff-filter -S -G -L --min-parents --max-parents --inter-hunk-context --encoding"
)
_LOG = Program(flags=_LOOK, valued=f"{_LOOK_FOR} -n", number=True)
_DIFF = Program(flags=_LOOK, valued=_LOOK_FOR, number=True)
_LIST = "--list --contains --no-contains --merged --no-merged --points-at"


def _check_list(given: Given) -> None:
    # To old versions of `git branch`, -l is something else than --list.
    lists = given.has(*_LIST.split()) or (given.name == "git tag" and given.has("-l"))
    if given.operands and not lists:
        raise NotKnownError(f"{given.name} {unmarked(given.operands[0].text)} may make or move something")


_FEW = "-v --verbose --porcelain -p --patch --stat --name-only --name-status --oneline"

_PROGRAMS: Mapping[str, Program] = {
    "log": _LOG,
    "rev-list": _LOG,
    "show": _LOG,
    "diff": _DIFF,
    "diff-tree": _DIFF,
    "diff-index": _DIFF,
    "shortlog": Program(flags=f"{_LOOK} -n -e --numbered --email", valued=_LOOK_FOR, number=True),
    "status": Program(
        flags="-s -b -v -z -u -uno -unormal -uall --short --branch --porcelain --long --verbose --ignored --show-stash"
        " --untracked-files --ahead-behind --no-ahead-behind --renames --no-renames --column --no-column",
    ),
    "branch": Program(
        flags="-a -r -v -vv --all --remotes --verbose --list --show-current --merged --no-merged --color --no-color"
        " --column --no-column --ignore-case",
        valued="--contains --no-contains --points-at --sort --format", check=_check_list,
    ),
    "tag": Program(
        flags="-l -n --list --merged --no-merged --column --no-column --ignore-case",
        valued="--contains --no-contains --points-at --sort --format", check=_check_list,
    ),
    "rev-parse": Program(
        flags="--show-toplevel --abbrev-ref --short --verify --git-dir --is-inside-work-tree --is-bare-repository"
        " --show-prefix --show-cdup --quiet -q --all --branches --tags --remotes --symbolic-full-name --git-common-dir",
    ),
    "ls-files": Program(
        flags="-c -d -m -o -i -s -u -k -z -t -v --cached --deleted --modified --others --ignored --stage --unmerged"
        " --exclude-standard --error-unmatch --full-name --directory --no-empty-directory --eol --deduplicate",
        valued="-x --exclude --abbrev",
    ),
    "ls-tree": Program(
        flags="-d -r -t -l -z --long --name-only --name-status --full-name --full-tree --object-only --abbrev",
    ),
    "cat-file": Program(flags="-t -s -e -p"),
    "blame": Program(
        flags="-b -c -e -f -l -n -p -s -t -w -M -C --porcelain --line-porcelain --show-name --show-email"
        " --show-number --root --incremental --abbrev",
        valued="-L --since --date",
    ),
    "grep": Program(
        # Not -O, which opens what it finds in a program.
        flags="-n -i -v -w -c -l -L -h -H -o -q -I -a -E -F -G -P -p -W --line-number --ignore-case --invert-match"
        " --word-regexp --count --files-with-matches --name-only --files-without-match --only-matching --quiet --text"
        " --extended-regexp --fixed-strings --perl-regexp --basic-regexp --cached --untracked --show-function --heading"
        " --break --and --or --not --color --no-color --full-name -z --null --column --recursive --function-context",
        valued="-e -A -B -C --max-depth --after-context --before-context --context --threads -m --max-count",
        number=True, operands="pattern", pattern_options="-e",
    ),
    "describe": Program(
        flags="--tags --always --dirty --all --long --exact-match --contains --first-parent --abbrev",
        valued="--match --exclude --candidates",
    ),
    "merge-base": Program(flags="-a --all --is-ancestor --octopus --independent --fork-point"),
    "show-ref": Program(flags="--heads --tags --branches --verify --hash -d --dereference -s -q --quiet --head"),
    "for-each-ref": Program(
        flags="--ignore-case", valued="--format --sort --count --contains --merged --no-merged --points-at",
    ),
    "name-rev": Program(flags="--tags --name-only --always"),
    "count-objects": Program(flags="-v -H --verbose --human-readable", operands="none"),
    "check-ignore": Program(flags="-v -n -q --verbose --non-matching --quiet --no-index"),
    "remote": Program(flags=_FEW, number=True, operands="none"),
    "remote get-url": Program(flags=_FEW, number=True),
    "stash list": Program(flags=_FEW, number=True),
    "stash show": Program(flags=_FEW, number=True),
    "worktree list": Program(flags=_FEW, number=True),
    "reflog": Program(flags=_FEW, number=True, operands="none"),
    "reflog show": Program(flags=_FEW, number=True),
    "version": Program(operands="none"),
    "--version": Program(operands="none"),
}  # fmt: skip

_BEFORE = frozenset({"--no-pager", "-P", "--no-optional-locks", "--literal-pathspecs", "--no-replace-objects"})


def check_git(arguments: Sequence[Word], places: Places, *, is_at_home: bool) -> None:
    """Check that git only looks.

    Args:
      is_at_home: whether it runs in the folder of the tool.

    Raises:
      NotKnownError: it may do more.
    """
    if not is_at_home:
        raise NotKnownError("git may run programs that the configuration of another folder names")
    rest = list(arguments)
    while rest and rest[0].text in _BEFORE:
        rest.pop(0)
    command = rest.pop(0).text if rest else ""
    if rest and f"{command} {rest[0].text}" in _PROGRAMS:
        command = f"{command} {rest.pop(0).text}"
    program = _PROGRAMS.get(command)
    if program is None:
        raise NotKnownError(f"git {unmarked(command)}".rstrip() + " is not known to be harmless")
    check_program(f"git {command}", program, rest, places)
