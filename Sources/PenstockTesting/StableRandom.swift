// SPDX-License-Identifier: Apache-2.0
public import PenstockSystem
internal import Synchronization

/// A small generator (SplitMix64) whose numbers depend on its seed alone: the same on every machine
/// and with every release of Swift. Threads may share it; each number is given out once.
///
/// Use `below` and `chance` where a run must be repeatable: what the standard library makes of a
/// generator (`Int.random`, `shuffled`) may change between releases.
public final class StableRandom: RandomSource, RandomNumberGenerator {
  private let state: Atomic<UInt64>

  /// A generator that starts anew from `seed`; any value is as good as another.
  public init(seed: UInt64) { state = Atomic(seed) }

  /// The next 64 bits.
  public func next() -> UInt64 {
    var bits = state.wrappingAdd(0x9e37_79b9_7f4a_7c15, ordering: .relaxed).newValue
    bits = (bits ^ (bits >> 30)) &* 0xbf58_476d_1ce4_e5b9
    bits = (bits ^ (bits >> 27)) &* 0x94d0_49bb_1331_11eb
    return bits ^ (bits >> 31)
  }

  /// A number in `0..<bound`. `bound` is above zero.
  public func below(_ bound: Int) -> Int {
    precondition(bound > 0, "no number is below \(bound)")
    return Int(next().multipliedFullWidth(by: UInt64(bound)).high)
  }

  /// True in `numerator` of `denominator` cases.
  public func chance(_ numerator: Int, of denominator: Int) -> Bool {
    below(denominator) < numerator
  }
}
