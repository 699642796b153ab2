// SPDX-License-Identifier: Apache-2.0
internal import Synchronization

/// A count with a limit, shared by all event loops.
final class Gauge: Sendable {
  private let limit: Int
  private let value = Atomic<Int>(0)

  init(limit: Int) { self.limit = limit }

  /// Adds `amount` unless that would pass the limit. Relaxed: nothing else hangs on the count.
  func take(_ amount: Int) -> Bool {
    let sum = value.wrappingAdd(amount, ordering: .relaxed).newValue
    guard sum > limit else { return true }
    value.wrappingSubtract(amount, ordering: .relaxed)
    return false
  }

  func giveBack(_ amount: Int) {
    value.wrappingSubtract(amount, ordering: .relaxed)
  }
}
