#!/bin/sh
# Runs BSD make where an image is built (jetpack.image.mk): the one that is there, or the host's,
# which 'jetpack.make --take DIR MAKE' has copied to DIR with the libraries that it needs.
set -eu

if [ "${1:-}" != --take ]; then
	if [ -x /usr/bin/make ] && [ -r /usr/share/mk/bsd.prog.mk ]; then # FreeBSD's
		exec /usr/bin/make "$@"
	elif command -v bmake >/dev/null; then
		exec bmake "$@"
	fi
	copy=$(dirname "$0")/.jetpack.make
	if [ -e "$copy/ld.so" ]; then
		# The loader finds the libraries of the host's, not those of the image. -r: there are no rules
		# for compilers.
		set -- -r "$@"
		exec "$copy/ld.so" --library-path "$copy" "$copy/make" "$@"
	fi
	exec "$copy/make" -r "$@"
fi

dir=$2
make=$(command -v "$3")
rm -rf "$dir"
mkdir "$dir"
cp "$make" "$dir/make"
[ "$(uname -s)" = Linux ] || exit 0 # FreeBSD's make is static
ldd "$make" 2>/dev/null | while read -r name arrow path rest; do
	case $name in
	/*ld-*) cp "$name" "$dir/ld.so" ;;
	*/*) ;;
	*) [ "$arrow" != "=>" ] || [ ! -e "$path" ] || cp "$path" "$dir/$name" ;;
	esac
done
