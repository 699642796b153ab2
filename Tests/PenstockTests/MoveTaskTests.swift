// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockTesting
import Testing

/// A dead-letter queue with its source.
private struct Scene {
  let bench = Bench()
  var store: Store
  var source: Penstock.Queue
  var dead: Penstock.Queue

  init() async throws {
    store = try await bench.open()
    dead = try await store.queue("dead")
    source = try await store.queue(
      "source",
      QueueSettings {
        $0.deadLetterQueue = "dead"
        $0.maximumReceives = 1
      })
  }

  mutating func restart() async throws {
    try await store.close()
    store = try await bench.open()
    source = try #require(store.existingQueue("source"))
    dead = try #require(store.existingQueue("dead"))
  }

  /// Sends messages to the source and receives them until they are dead letters.
  func kill(_ texts: [String]) async throws {
    for text in texts { try await source.send(text) }
    for _ in 0..<2 {
      _ = try await source.receive(maximum: 100, wait: .zero, visibilityTimeout: .zero)
    }
  }

  func start(
    _ destination: Penstock.Queue? = nil, rate: Int? = nil
  ) async throws -> MoveTask {
    try await Answer {
      store.startMoveTask(
        from: dead.id, to: destination?.id, maximumPerSecond: rate, $0)
    }.value
  }

  /// The newest task, once it has ended.
  func ended() async throws -> MoveTask {
    try await eventually { store.moveTasks(of: dead.id).first?.status.isActive == false }
    return try #require(store.moveTasks(of: dead.id).first)
  }
}

@Suite struct MoveTasks {
  @Test("6.5 messages go back to where they came from, as new ones")
  func messagesGoBack() async throws {
    let scene = try await Scene()
    try await scene.kill(["1", "2", "3"])
    var old = Set<MessageID>()
    try await scene.dead.walk { message in
      old.insert(message.id)
      return true
    }
    scene.bench.pass(.seconds(10), scene.store)
    let started = try await scene.start()
    #expect(started.status == .running && started.toMove == 3 && started.destination == nil)
    let task = try await scene.ended()
    #expect(task.id == started.id && task.status == .completed && task.moved == 3)
    let leases = try await scene.source.receive(maximum: 10, wait: .zero)
    #expect(leases.map(\.text) == ["1", "2", "3"])
    for lease in leases {
      #expect(!old.contains(lease.message.id))
      #expect(lease.message.receiveCount == 1 && lease.message.origin == nil)
      #expect(lease.message.sentAt == scene.store.now)
    }
    #expect(try await scene.dead.countsList == [0, 0, 0])
    #expect(scene.store.brokenInvariant == nil)
    try await scene.store.close()
  }

  @Test("6.5 a destination takes them, whatever its delay and its sizes")
  func aDestinationTakesThem() async throws {
    let scene = try await Scene()
    let other = try await scene.store.queue(
      "other", QueueSettings(delay: .seconds(900), maximumMessageBytes: 1))
    try await scene.kill(["moved"])
    try await scene.dead.send("sent there")
    _ = try await scene.start(other)
    let task = try await scene.ended()
    #expect(task.status == .completed && task.destination == "other")
    #expect(
      try await other.receive(maximum: 10, wait: .zero).map(\.text) == ["moved", "sent there"])
    try await scene.store.close()
  }

  @Test("6.5 what is leased or delayed stays")
  func leasedAndDelayedOnesStay() async throws {
    let scene = try await Scene()
    try await scene.kill(["held", "moved"])
    let held = try #require(try await scene.dead.receive(wait: .zero).first)
    try await scene.dead.send("delayed", delay: .seconds(900))
    _ = try await scene.start()
    #expect(try await scene.ended().moved == 1)
    #expect(try await scene.dead.countsList == [0, 1, 1])
    #expect(held.text == "held")
    #expect(try await scene.source.receive(maximum: 10, wait: .zero).map(\.text) == ["moved"])
    try await scene.store.close()
  }

  @Test("6.5 without a source, or a destination, it fails and the message stays")
  func itFailsWithoutASourceOrADestination() async throws {
    let scene = try await Scene()
    try await scene.dead.send("sent there")
    _ = try await scene.start()
    #expect(try await scene.ended().status == .failedWithoutSource)
    try await scene.dead.purge()
    try await scene.kill(["m"])
    try await scene.source.remove()
    _ = try await scene.start()
    #expect(try await scene.ended().status == .failedWithoutDestination)
    #expect(try await scene.dead.countsList == [1, 0, 0])
    try await scene.store.close()
  }

  @Test("6.5 one at a time, which can be cancelled, and goes on after a restart")
  func oneAtATimeCanBeCancelled() async throws {
    var scene = try await Scene()
    try await scene.kill((0..<5).map(String.init))
    // The second message of this task would be due in a second of a clock that does not move.
    let first = try await scene.start(rate: 1)
    #expect(await code { _ = try await scene.start() } == .moveTaskActive)
    try await scene.restart()
    let kept = try #require(scene.store.moveTasks(of: scene.dead.id).first)
    #expect(kept.id == first.id && kept.status == .running && kept.rate == 1)
    let (store, dead) = (scene.store, scene.dead)
    let cancelled = try await Answer { store.cancelMoveTask(first.id, from: dead.id, $0) }.value
    #expect(cancelled.status == .cancelling || cancelled.status == .cancelled)
    let task = try await scene.ended()
    #expect(task.status == .cancelled)
    let again = await Answer { store.cancelMoveTask(first.id, from: dead.id, $0) }.code
    #expect(again == .moveTaskOver)
    #expect(try await dead.countsList == [5 - task.moved, 0, 0])
    #expect(try await scene.source.countsList == [task.moved, 0, 0])
    try await scene.store.close()
  }

  @Test("6.5 the last ten are remembered, the newest first")
  func theLastTenAreRemembered() async throws {
    var scene = try await Scene()
    var ids: [MessageID] = []
    for _ in 0..<12 {
      ids.append(try await scene.start().id)
      #expect(try await scene.ended().status == .completed)
    }
    try await scene.restart()
    #expect(scene.store.moveTasks(of: scene.dead.id).map(\.id) == Array(ids.reversed().prefix(10)))
    try await scene.store.close()
  }

  @Test("4.8 a message that a task brings wakes who waits")
  func whatATaskBringsWakesWhoWaits() async throws {
    let scene = try await Scene()
    try await scene.kill(["m"])
    let waiting = scene.source.startReceive()
    #expect(!waiting.isThere)
    _ = try await scene.start()
    #expect(try await waiting.value.texts == ["m"])
    try await scene.store.close()
  }
}
