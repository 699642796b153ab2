// SPDX-License-Identifier: Apache-2.0

/// Counts of durations in buckets of equal relative width, so that a long run costs what a short
/// one does and no duration is told more than 0.8 % off.
///
/// The layout is that of HDR histograms: durations below 256 ns have a bucket each; every power of
/// two above is cut into 128. What is longer than 2^41 ns, some 37 minutes, counts as that.
struct Histogram: Sendable {
  private(set) var counts = [UInt64](repeating: 0, count: Histogram.index(of: Histogram.limit) + 1)
  private(set) var count: UInt64 = 0
  /// Nanoseconds of the longest.
  private(set) var longest: UInt64 = 0
  private var sum = 0.0

  private static let limit: UInt64 = 1 << 41

  mutating func record(_ nanoseconds: UInt64, times: UInt64 = 1) {
    counts[Self.index(of: min(nanoseconds, Self.limit))] += times
    count += times
    longest = max(longest, nanoseconds)
    sum += Double(nanoseconds) * Double(times)
  }

  mutating func add(_ other: Histogram) {
    for place in other.counts.indices { counts[place] += other.counts[place] }
    count += other.count
    longest = max(longest, other.longest)
    sum += other.sum
  }

  /// Nanoseconds.
  var mean: Double { count == 0 ? 0 : sum / Double(count) }

  /// Nanoseconds that `fraction` of the durations do not exceed, told from the top of their bucket;
  /// 0 while nothing is recorded.
  func percentile(_ fraction: Double) -> UInt64 {
    guard count > 0 else { return 0 }
    let rank = max(1, UInt64((fraction * Double(count)).rounded(.up)))
    var seen: UInt64 = 0
    for (place, number) in counts.enumerated() where number > 0 {
      seen += number
      if seen >= rank { return min(Self.top(of: place), longest) }
    }
    return longest
  }

  private static func index(of value: UInt64) -> Int {
    guard value >= 256 else { return Int(value) }
    let shift = 56 - value.leadingZeroBitCount
    return shift * 128 + Int(value >> UInt64(shift))
  }

  /// The longest duration that counts in the bucket.
  private static func top(of place: Int) -> UInt64 {
    guard place >= 256 else { return UInt64(place) }
    let shift = place / 128 - 1
    return (UInt64(place - shift * 128) + 1) << UInt64(shift) - 1
  }
}
