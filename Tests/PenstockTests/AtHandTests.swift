// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockSystem
import PenstockTesting
import Testing

/// A store of which each worker has its turn when the test says so.
private struct Stage {
  let store: Store
  let driver: StoreDriver
  let queue: QueueID

  init(recentBytes: Int, cipher: (any ContentCipher)? = nil) async throws {
    var options = StoreOptions()
    options.segmentSize = 1 << 20
    options.cipher = cipher
    options.recentBytes = recentBytes
    let environment = StoreEnvironment(
      fileSystem: SimulatedFileSystem(), clock: SimulatedClock(), random: StableRandom(seed: 1))
    let (store, driver) = try Store.openDriven(
      at: "/store", options: options, environment: environment)
    (self.store, self.driver) = (store, driver)
    let description = Answer { store.createQueue("jobs", QueueSettingsChange(), $0) }
    Self.turns(driver)
    queue = try await description.value.id
  }

  private static func turns(_ driver: StoreDriver) {
    for _ in 0..<16 { for worker in driver.due where worker != .reader { driver.turn(worker) } }
  }

  /// Everybody has turns but the reader.
  func turns() { Self.turns(driver) }

  func send(_ bodies: [String]) async throws {
    let entries = bodies.map { SendEntry(MessageContent(body: Array($0.utf8))) }
    let sent = Answer { store.send(entries, to: queue, $0) }
    turns()
    for result in try await sent.value { _ = try result.get() }
  }

  func receive(_ maximum: Int) -> Answer<[ReceivedMessage]> {
    Answer { _ = store.receive(ReceiveRequest(maximumMessages: maximum), from: queue, $0) }
  }

  /// What an answer has, once the reader has had its turns as well.
  func bodies(_ answer: Answer<[ReceivedMessage]>) async throws -> [String] {
    for _ in 0..<4 { driver.turn(.reader) }
    return try await answer.value.map { String(decoding: $0.content.body, as: UTF8.self) }
  }
}

/// Nothing is sealed here, but it might be.
private struct IdleCipher: ContentCipher {
  func has(key: String) -> Bool { false }
  func seal(
    _ plain: [UInt8], key: String, reuse: Duration, at time: Timestamp
  ) throws(PenstockError) -> [UInt8] { plain }
  func open(_ sealed: [UInt8], key: String) throws(PenstockError) -> [UInt8] { sealed }
}

/// Receives whose messages are in memory and cost less than a hop to the reader's thread.
@Suite struct AtHandTests {
  @Test func whoIsAloneIsAnsweredByTheLogsThread() async throws {
    let stage = try await Stage(recentBytes: 4 << 20)
    try await stage.send(["one", "two"])
    let answer = stage.receive(2)
    #expect(!answer.isThere, "the lease is written first")
    stage.turns()
    #expect(answer.isThere)
    #expect(try await stage.bodies(answer) == ["one", "two"])
  }

  @Test func whatIsNotInMemoryIsLeftToTheReader() async throws {
    let stage = try await Stage(recentBytes: 0)
    try await stage.send(["one"])
    let answer = stage.receive(1)
    stage.turns()
    #expect(!answer.isThere)
    #expect(try await stage.bodies(answer) == ["one"])
  }

  @Test func manyMessagesAreLeftToTheReader() async throws {
    let stage = try await Stage(recentBytes: 4 << 20)
    let bodies = (0..<100).map { "\($0)" }
    try await stage.send(bodies)
    let answer = stage.receive(100)
    stage.turns()
    #expect(!answer.isThere)
    #expect(try await stage.bodies(answer) == bodies)
  }

  @Test func largeMessagesAreLeftToTheReader() async throws {
    let stage = try await Stage(recentBytes: 4 << 20)
    for (size, isAtHand) in [(100 << 10, true), (140 << 10, false)] {
      try await stage.send([String(repeating: "x", count: size)])
      let answer = stage.receive(1)
      stage.turns()
      #expect(answer.isThere == isAtHand, "\(size) bytes")
      #expect(try await stage.bodies(answer)[0].utf8.count == size)
    }
  }

  @Test func whatACipherMayHaveToOpenIsLeftToTheReader() async throws {
    let stage = try await Stage(recentBytes: 4 << 20, cipher: IdleCipher())
    try await stage.send(["one"])
    let answer = stage.receive(1)
    stage.turns()
    #expect(!answer.isThere)
    #expect(try await stage.bodies(answer) == ["one"])
  }

  @Test func whoIsNotAloneIsLeftToTheReader() async throws {
    let stage = try await Stage(recentBytes: 4 << 20)
    try await stage.send(["one"])
    let answer = stage.receive(1)
    let entry = SendEntry(MessageContent(body: []))
    let sent = Answer { stage.store.send([entry], to: stage.queue, $0) }
    stage.turns()
    #expect(sent.isThere && !answer.isThere, "the send waits for the same commit")
    #expect(try await stage.bodies(answer) == ["one"])
  }

  @Test func severalReceivesOfOneCommitAreLeftToTheReader() async throws {
    let stage = try await Stage(recentBytes: 4 << 20)
    try await stage.send(["one", "two"])
    let answers = [stage.receive(1), stage.receive(1)]
    stage.turns()
    #expect(!answers[0].isThere && !answers[1].isThere)
    #expect(try await stage.bodies(answers[0]) == ["one"])
    #expect(try await stage.bodies(answers[1]) == ["two"])
  }
}
