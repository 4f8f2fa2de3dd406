# A pipeline of forks: subshells, command substitutions, a background job, and programs that hold
# tens of megabytes each at the same time.
set -eu

numbers() {
	awk -v n="$1" 'BEGIN { for (i = 0; i < n; i++) printf "%d %s\n", (i * 7919) % 1000003, "key" i * 7 }'
}

lines=0
for part in 1 2 3 4; do
	lines=$((lines + $(numbers 100000 | head -n "${part}000" | wc -l)))
done
echo "lines $lines"

# Two programs that hold everything, then a compressor with its dictionary.
numbers 240000 |
	awk '{ seen[$2] = $1; sum += $1 } END { print length(seen), sum
		for (key in seen) print key, seen[key] }' |
	sort -S 30M | xz -1 -T1 | xz -d | cksum

(numbers 150000 | gzip -1 | gunzip |
	awk '{ x[NR] = $0 } END { for (i = NR; i > 0; i -= 10000) print x[i] }')

background=$(
	numbers 150000 | sort -S 30M -k2 | cksum &
	numbers 150000 | awk '{ x[$1] = $2 } END { for (i = 0; i < 1000003; i += 50000) print x[i] }'
	wait
)
echo "background" $background | tr ' ' '\n' | sort
(exit 7) || echo "status $?"
