#!/usr/bin/env bash
# Builds the documentation as a site and follows every link in it: book.sh MDBOOK LYCHEE
#
# The pages stay where they are in the repository, so that links between them work there and here; docs/SUMMARY.md is
# the order. The site is in target/book/html.
set -euo pipefail
mdbook=$(realpath "$1") lychee=$(realpath "$2")
cd "$(dirname "$0")/.."

book=target/book
rm -rf "$book"
mkdir -p "$book/src"
cp book.toml "$book/"
git ls-files -z --cached --others --exclude-standard -- '*.md' docs openapi.yaml compose.yaml deny.toml 'LICENSE-*' packaging examples \
    | xargs -0 cp --parents -t "$book/src"
# Its links are relative to docs/, and the book's to the root.
sed 's,](\.\./,](,; t; s,](,](docs/,' docs/SUMMARY.md >"$book/src/SUMMARY.md"
rm "$book/src/docs/SUMMARY.md"
"$mdbook" build "$book"
# A README is the index of its folder, and links to it lead to README.html.
find "$book/src" -name README.md -printf '%P\n' | while read -r page; do
    index=$book/html/$(dirname "$page")/index.html
    if [ -e "$index" ]; then cp "$index" "$book/html/${page%.md}.html"; fi
done

# Every page is in the summary.
missing=0
while read -r page; do
    [ -e "$book/html/${page%.md}.html" ] || [ -e "$book/html/$(dirname "$page")/index.html" ] \
        || { echo "$page is not in docs/SUMMARY.md" >&2; missing=1; }
done < <(git ls-files --cached --others --exclude-standard -- 'docs/*.md' | grep -v SUMMARY.md)
[ "$missing" = 0 ]

"$lychee" --offline --no-progress --include-fragments --root-dir "$PWD/$book/html" --exclude-path '404\.html' \
    --exclude-path 'print\.html' --exclude-path 'toc\.html' "$book/html"
