#!/bin/sh
# What can be asked of a repository, and whether it can be written: git starts itself, perl and sh for it.
cd /repository || exit 1
git config --get-regexp '^user'
git log --stat --format='%H %an %s' | cat
git show HEAD~1 | sha256sum
git diff HEAD~2 HEAD -- '*.txt'
git blame file1.txt | head -n 3
git fsck --full --no-progress; echo "fsck $?"
git grep -n line HEAD -- '*.txt' | wc -l
git rev-list --all --objects | sort | sha256sum
git ls-files -s
git archive HEAD | tar -tf - | sort
git bundle create - HEAD 2>/dev/null | wc -c
git status --short
git cat-file --batch-check --batch-all-objects | sort | sha256sum
export GIT_AUTHOR_DATE=2024-02-01T00:00Z GIT_COMMITTER_DATE=2024-02-01T00:00Z
git commit --allow-empty -m x 2>&1 | head -n 1
git submodule status; echo "submodule $?"
exec git rev-parse HEAD
