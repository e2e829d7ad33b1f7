package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// median returns the middle value, or the lower one of the two in the middle.
func median[T int | int64 | float64 | time.Duration](v []T) T {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return s[(len(s)-1)/2]
}

// quantile returns the smallest value that at least the share q of the values does
// not exceed.
func quantile(v []time.Duration, q float64) time.Duration {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	i := int(q*float64(len(s))+0.999999) - 1
	return s[min(max(i, 0), len(s)-1)]
}

// group writes an integer with commas between thousands.
func group[T int | int64](n T) string {
	s := strconv.FormatInt(int64(n), 10)
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/1e6) }

func mib(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }

func perSecond(n int64, d time.Duration) float64 { return float64(n) / d.Seconds() }

func rateMiB(bytes int64, d time.Duration) float64 { return perSecond(bytes, d) / (1 << 20) }

func largest(v []int) int { return slices.Max(v) }
