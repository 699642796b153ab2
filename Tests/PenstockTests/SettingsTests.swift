// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockTesting
import Synchronization
import Testing

private struct TooMany: Error, Equatable { var tags: Int }

extension Store {
  /// Adds a tag, but to no more than a number of them.
  fileprivate func tag(
    _ queue: QueueID, _ name: String, limit: Int = 1000
  ) async throws -> Result<QueueDescription, TooMany> {
    try await Answer {
      self.changeQueue(
        queue,
        deciding: { settings in
          var tags = settings.tags
          tags[name] = "value of \(name)"
          if tags.count > limit { return .failure(TooMany(tags: tags.count)) }
          if tags == settings.tags { return .success(nil) }
          return .success(QueueSettingsChange { $0.tags = tags })
        }, $0)
    }.value
  }
}

@Suite struct ChangingSettings {
  @Test func changesThatDependOnWhatIsThereDoNotOverwriteEachOther() async throws {
    let bench = Bench()
    let (store, queue) = try await bench.openWithQueue()
    try await withThrowingTaskGroup(of: Void.self) { group in
      for number in 0..<50 {
        group.addTask { _ = try await store.tag(queue.id, "\(number)").get() }
      }
      try await group.waitForAll()
    }
    let all = Set((0..<50).map { "\($0)" })
    #expect(Set(try await queue.describe().settings.tags.keys) == all)
    try await store.close()
    let again = try await bench.open()
    #expect(Set(try #require(again.lookup("q")).settings.tags.keys) == all)
    try await again.close()
  }

  @Test func aRefusalIsTheCallersOwnAndNothingIsLogged() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    let first = try await store.tag(queue.id, "a", limit: 1).get()
    #expect(first.changedAt == first.createdAt)
    let lsn = store.lastLSN
    #expect(try await store.tag(queue.id, "b", limit: 1) == .failure(TooMany(tags: 2)))
    #expect(try await store.tag(queue.id, "a").get() == first)
    #expect(store.lastLSN == lsn)
    try await Answer { store.deleteQueue(queue.id, $0) }.value
    #expect(await code { _ = try await store.tag(queue.id, "c") } == .queueNotFound)
    try await store.close()
    #expect(await code { _ = try await store.tag(queue.id, "c") } == .closed)
  }

  @Test func settingsThatFitNowhereAreRefused() async throws {
    let bench = Bench(segmentSize: 64 << 10)
    let (store, queue) = try await bench.openWithQueue()
    for (size, expected) in [
      (60 << 10, PenstockError.Code.messageTooLarge), (2 << 20, .invalidArgument),
    ] {
      let change = QueueSettingsChange { $0.policy = String(repeating: "p", count: size) }
      #expect(await code { _ = try await queue.change(change) } == expected)
      #expect(
        await Answer { store.createQueue("new", change, $0) }.code == expected)
    }
    try await queue.change(.init { $0.policy = String(repeating: "p", count: 10 << 10) })
    try await store.close()
    let again = try await bench.open()
    #expect(again.lookup("q")?.settings.policy.utf8.count == 10 << 10)
    #expect(again.lookup("new") == nil)
    try await again.close()
  }

  /// The closure runs with the store's lock held: a look that took it would never end.
  @Test func aLookForAQueueWaitsForNobody() async throws {
    let (store, queue) = try await Bench().openWithQueue()
    let seen = Mutex<QueueListing?>(nil)
    let change = QueueSettingsChange { $0.policy = "p" }
    let result: Result<QueueDescription, TooMany> = try await Answer {
      store.changeQueue(
        queue.id,
        deciding: { _ in
          seen.withLock { $0 = store.lookup("q") }
          return .success(change)
        }, $0)
    }.value
    let old = try #require(seen.withLock { $0 })
    #expect(old.id == queue.id && old.settings.policy.isEmpty)
    let description = try result.get()
    let new = try #require(store.lookup("q"))
    #expect(new.settings == description.settings && new.settings.policy == "p")
    #expect(new.createdAt == description.createdAt && new.changedAt == description.changedAt)
    try await Answer { store.deleteQueue(queue.id, $0) }.value
    #expect(store.lookup("q") == nil)
    let other = try await store.queue("q")
    #expect(store.lookup("q")?.id == other.id && other.id != queue.id)
    try await store.close()
  }
}
