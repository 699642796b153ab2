// SPDX-License-Identifier: Apache-2.0
// The test of PenstockTesting's README, built outside the package.
import Penstock
import PenstockTesting
import Synchronization
import Testing

/// Stands for the application's database. It outlives the consumer's process.
final class Books: Sendable {
  private struct Row {
    var key: MessageID
    var text: String
  }
  private let rows = Mutex<[Row]>([])

  var texts: [String] { rows.withLock { $0.map(\.text).sorted() } }

  func has(_ key: MessageID) -> Bool { rows.withLock { $0.contains { $0.key == key } } }

  func insert(_ text: String, _ key: MessageID) {
    rows.withLock { $0.append(Row(key: key, text: text)) }
  }

  /// One transaction, as a unique index on the key makes it.
  func insertOnce(_ text: String, _ key: MessageID) {
    rows.withLock { rows in
      if !rows.contains(where: { $0.key == key }) { rows.append(Row(key: key, text: text)) }
    }
  }
}

struct OrderTests {
  /// Every order is in the books once, whatever happens to the consumer.
  func test(
    _ book: @escaping @Sendable (Delivery, Books) async throws -> Void
  ) -> HandlerTest<Books> {
    HandlerTest(["tea", "coffee", "salt"], world: { Books() }) { books in
      // Here the consumer's process starts: what is made here is lost when it ends.
      { delivery in try await book(delivery, books) }
    } check: { books in
      books.texts == ["coffee", "salt", "tea"] ? nil : "the books show \(books.texts)"
    }
  }

  @Test func anOrderIsBookedOnce() {
    let report = test { delivery, books in
      try await delivery.checkpoint()
      books.insertOnce(delivery.text, delivery.id)
      try await delivery.checkpoint()
    }.run(trials: 100)
    #expect(report.hasPassed, "\(report)")
  }

  /// To ask first and to insert later is not enough: two consumers may have asked.
  @Test func theTestFindsARace() {
    var racy = test { delivery, books in
      if books.has(delivery.id) { return }
      try await delivery.checkpoint()
      books.insert(delivery.text, delivery.id)
    }
    racy.faults = .leaseExpiry
    #expect(!racy.run(trials: 100).hasPassed)
    racy.faults = [.duplicates, .crashes, .failures]
    #expect(racy.run(trials: 100).hasPassed)
  }
}
