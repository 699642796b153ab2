// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import penstock

@Suite struct HistogramTests {
  @Test func percentilesAreWithinABucketOfTheTruth() {
    var histogram = Histogram()
    for value in 1...100_000 as ClosedRange<UInt64> { histogram.record(value * 1000) }
    for fraction in [0.01, 0.5, 0.9, 0.99, 0.999] {
      let truth = fraction * 100_000_000
      let told = Double(histogram.percentile(fraction))
      #expect(told >= truth && told <= truth * 1.008, "\(fraction): \(told), not \(truth)")
    }
    #expect(histogram.percentile(1) == 100_000_000)
    #expect(histogram.longest == 100_000_000)
    #expect(abs(histogram.mean - 50_000_500) < 1)
  }

  @Test func edgesAndJoins() {
    var histogram = Histogram()
    #expect(histogram.percentile(0.5) == 0)
    for value in [0, 255, 256, 257, 511, 512] as [UInt64] { histogram.record(value) }
    #expect(histogram.percentile(1.0 / 6) == 0)
    #expect(histogram.percentile(2.0 / 6) == 255)
    var other = Histogram()
    other.record(.max, times: 10)
    histogram.add(other)
    #expect(histogram.count == 16)
    #expect(histogram.longest == .max)
  }
}
