package reconcile

import "math"

// deviation is one sample of the number of differences: of d of them, each is in
// symbol i > 0 with probability p (see expected), so the difference of both sides' counts
// has mean p·delta and variance d·p·(1-p), whichever side the ids are on. Here, too,
// products are rounded before they are added, so that runs replay on any machine.
func deviation(i int, difference, delta float64) float64 {
	p := 8 * float64(i+1) / float64((2*i+3)*(2*i+3))
	x := difference - float64(p*delta)
	return x * x / (p * (1 - p))
}

// estimateCounts returns about how many differences there are between two sets
// whose first symbols have these counts. The relative standard deviation is
// sqrt(2/len): 25 % for 32.
func estimateCounts(a, b []int64) float64 {
	delta := float64(a[0] - b[0])
	var sum float64
	for i := 1; i < len(a); i++ {
		sum += deviation(i, float64(a[i]-b[i]), delta)
	}
	return max(sum/float64(len(a)-1), math.Abs(delta), 1)
}

// symbolsFor is how many symbols d differences take in 99 of 100 cases, from
// 3.5·d for a few to 1.4·d for many.
func symbolsFor(d float64) int {
	d = min(d, 1<<30)
	return int(float64(1.35*d)+float64(4*math.Sqrt(d))) + 4
}

// firstRun is how many symbols to send on the estimate of a hello, of sets whose
// sizes differ by delta. Few differences: enough even if they are half as many
// again, for the bytes are few. Many: rather too few, for the next estimate is a
// good one and a surplus costs kilobytes; but often all differences are on one
// side, and then delta is exact.
func firstRun(d, delta float64) int {
	return symbolsFor(max(0.7*d, math.Abs(delta), min(1.5*d, 24)))
}

// nextTotal is how many symbols to have after the next run, when have do not suffice.
func nextTotal(d float64, have int) int {
	margin := 1.05 + float64(1.5*math.Sqrt(2/float64(max(have, 1))))
	return max(symbolsFor(d*min(margin, 1.5)), have+have/4+16)
}

// symbolCap is how many symbols an attempt may take before it counts as failed.
func symbolCap(d float64, limit int) int {
	if d >= float64(limit) {
		return limit
	}
	return min(8*int(math.Ceil(d))+256, limit)
}
