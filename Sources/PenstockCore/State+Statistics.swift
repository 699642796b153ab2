// SPDX-License-Identifier: Apache-2.0

extension State {
  /// When the oldest message of a queue was sent, in whole seconds since 1970, rounded up; nil when
  /// it has none.
  ///
  /// - Complexity: O(messages of the queue that are in memory + runs).
  package func oldestSecond(of id: QueueID) -> UInt32? {
    guard let q = places[id.value] else { return nil }
    let inMemory = messages(table[q].ready) + messages(table[q].active)
    let parked = table[q].runs.map(\.oldestSecond)
    return (inMemory.map { slab[$0].sentSecond } + parked).min()
  }
}
