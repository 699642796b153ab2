// SPDX-License-Identifier: Apache-2.0
import Foundation
import Penstock
import PenstockSQS
import PenstockSystem
import PenstockTesting
import Testing

private let secret = "the secret of the body"
private let attribute = MessageAttribute(
  name: "SecretName", type: "String.secretType", value: .string("the secret of the attribute"))

/// A disk and its stores, one after the other.
private struct Machine {
  var disk = SimulatedFileSystem()
  let clock = SimulatedClock(wallMilliseconds: 1_700_000_000_000)
  var ring: KeyRing? = try? keyRing(keyLine("k"), keyLine("other", seed: 2))
  var window = 4

  func open(on disk: SimulatedFileSystem? = nil) throws -> Store {
    var options = StoreOptions()
    options.segmentSize = 64 << 10
    options.window = window
    options.cipher = ring
    return try Store.openBlocking(
      at: "/store", options: options,
      environment: StoreEnvironment(
        fileSystem: disk ?? self.disk, clock: clock, random: StableRandom(seed: 3)))
  }

  /// Files of the store that hold some bytes.
  func files(with text: String) throws -> [String] {
    try disk.list("/store").filter { name in
      let bytes = disk.contents(of: "/store/\(name)") ?? []
      return Data(bytes).range(of: Data(text.utf8)) != nil
    }
  }
}

extension Store {
  fileprivate func sealed(
    _ name: String = "q", with set: @escaping (inout QueueSettings) -> Void = { _ in }
  ) async throws -> Queue {
    try await queue(
      name,
      QueueSettings {
        $0.encryptionKey = "k"
        set(&$0)
      })
  }

  fileprivate func wait(_ condition: () async throws -> Bool) async throws {
    let end = ContinuousClock.now + .seconds(30)
    while try await !condition(), ContinuousClock.now < end { await Task.yield() }
    #expect(try await condition())
  }
}

/// The code of the error that `body` throws; nil when it throws none.
private func code(_ body: () async throws -> Void) async -> PenstockError.Code? {
  do {
    try await body()
    return nil
  } catch { return (error as? PenstockError)?.code }
}

@Suite struct Encryption {
  /// Before and after a restart, and when compaction has written everything again.
  @Test func noFileHoldsBodiesOrAttributes() async throws {
    let machine = Machine()
    var store = try machine.open()
    var queue = try await store.sealed()
    let plain = try await store.queue("plain")
    for number in 0..<300 { try await queue.send("\(secret) \(number)", attributes: [attribute]) }
    try await store.transaction {
      $0.send(Array("\(secret) 300".utf8), to: queue)
    }
    try await plain.send("in the clear")
    let texts = [secret, "SecretName", "secretType", "the secret of the attribute"]
    for text in texts { #expect(try machine.files(with: text) == []) }
    #expect(try machine.files(with: "in the clear").count == 1)
    try await store.close()
    store = try machine.open()
    queue = try #require(store.existingQueue("q"))
    // What is sent and purged between makes segments that are worth compacting.
    let filler = try await store.sealed("filler")
    for _ in 0..<6 {
      for _ in 0..<40 { try await filler.send([UInt8](repeating: 65, count: 4000)) }
      try await filler.purge()
    }
    try await store.wait { store.storage.diskBytes <= store.storage.diskBound }
    for text in texts + ["AAAAAAAA"] { #expect(try machine.files(with: text) == []) }
    #expect(try machine.files(with: "in the clear").count <= 2)
    var found: [String] = []
    while true {
      let leases = try await queue.receive(maximum: 50, wait: .zero)
      if leases.isEmpty { break }
      for lease in leases {
        #expect(lease.message.content.sealedWith == nil)
        #expect(lease.message.content.attributes == (found.count == 300 ? [] : [attribute]))
        found.append(lease.text)
        try await lease.delete()
      }
    }
    #expect(found == (0...300).map { "\(secret) \($0)" })
    try await store.close()
  }

  /// A message as large as the queue allows is larger when it is sealed.
  @Test func limitsCountWhatWasSent() async throws {
    let store = try Machine().open()
    let queue = try await store.sealed { $0.maximumMessageBytes = 1000 }
    try await queue.send([UInt8](repeating: 1, count: 1000))
    #expect(
      await code { try await queue.send([UInt8](repeating: 1, count: 1001)) }
        == .messageTooLarge)
    #expect(try await queue.receive().first?.body.count == 1000)
    #expect(store.metrics(of: queue.id)?.traffic.sentBytes == 1000)
    try await store.close()
  }

  @Test func withoutTheKeyNothingIsSent() async throws {
    var machine = Machine()
    machine.ring = nil
    var store = try machine.open()
    var queue = try await store.sealed()
    let lsn = store.lastLSN
    #expect(await code { try await queue.send("x") } == .keyNotFound)
    let bare = queue
    let before = await code {
      try await store.transaction { $0.send([1], to: bare) }
    }
    #expect(before == .keyNotFound && store.lastLSN == lsn)
    try await store.close()
    machine.ring = try keyRing(keyLine("other"))
    store = try machine.open()
    queue = try #require(store.existingQueue("q"))
    #expect(await code { try await queue.send("x") } == .keyNotFound)
    #expect(store.lastLSN == lsn)
    try await queue.change(.init { $0.encryptionKey = "other" })
    try await queue.send("y")
    try await queue.change(.init { $0.encryptionKey = "" })
    try await queue.send("z")
    #expect(try await queue.receive(maximum: 3).map(\.text) == ["y", "z"])
    #expect(try machine.files(with: "z").isEmpty == false)
    try await store.close()
  }

  /// Whoever changes the key and is answered finds nothing of before it behind it.
  @Test func aSendThatWaitsIsSealedWithTheKeyOfItsRecord() async throws {
    let machine = Machine()
    let store = try machine.open()
    let queue = try await store.queue("q")
    try await withThrowingTaskGroup(of: Void.self) { group in
      for sender in 0..<4 {
        group.addTask {
          for number in 0..<60 { try await queue.send("\(sender) \(number)") }
        }
      }
      group.addTask {
        for key in ["k", "other", "", "k"] {
          try await queue.change(.init { $0.encryptionKey = key })
        }
      }
      try await group.waitForAll()
    }
    try await store.close()
    var none = machine
    none.ring = nil
    // Without keys the sealed ones are told from the others, in the order of their records.
    let bare = try none.open()
    let found = try #require(bare.existingQueue("q"))
    var keys: [UInt64: String] = [:]
    try await found.walk {
      keys[$0.lsn] = $0.content.sealedWith ?? ""
      return true
    }
    var runs: [String] = []
    for (_, key) in keys.sorted(by: { $0.key < $1.key }) where runs.last != key { runs.append(key) }
    #expect(keys.count == 240)
    let all = ["", "k", "other", "", "k"]
    var rest = all[...]
    for run in runs {
      let place = rest.firstIndex(of: run)
      #expect(place != nil, "\(runs)")
      rest = rest[(place ?? rest.startIndex)...]
    }
    try await bare.close()
  }

  @Test(arguments: [
    (nil, PenstockError.Code.keyNotFound), (keyLine("other"), .keyNotFound),
    (keyLine("k", seed: 9), .keyMismatch), (keyLine("k", 2), .keyNotFound),
  ])
  func aMessageThatCannotBeOpenedStays(text: String?, expected: PenstockError.Code) async throws {
    var machine = Machine()
    var store = try machine.open()
    var queue = try await store.sealed()
    for number in 0..<12 { try await queue.send("\(secret) \(number)", attributes: [attribute]) }
    try await store.close()
    let ring = machine.ring
    machine.ring = try text.map { try KeyRing(parsing: $0) }
    store = try machine.open()
    queue = try #require(store.existingQueue("q"))
    var message = ""
    do throws(PenstockError) { _ = try await queue.receive(maximum: 2) } catch {
      #expect(error.code == expected && error.family == .rejected)
      message = error.message
    }
    #expect(message.contains("the key k "), "\(message)")
    let counts = try await queue.describe().counts
    #expect(counts.leased == 2 && counts.total == 12)
    var seen = 0
    try await queue.walk { message in
      seen += 1
      #expect(message.failure?.code == expected)
      #expect(message.content.body == [] && message.content.attributes == [])
      #expect(message.content.sealedWith == "k")
      return true
    }
    #expect(seen == 12)
    #expect(try await queue.peek().first?.failure?.code == expected)
    #expect(await code { _ = try await queue.purge { _ in true } } == expected)
    #expect(await code { _ = try await queue.move(to: nil) { _ in true } } == expected)
    #expect(try await queue.describe().counts.total == 12)
    try await store.close()
    machine.ring = ring
    machine.clock.advance(by: .seconds(60))
    store = try machine.open()
    queue = try #require(store.existingQueue("q"))
    let leases = try await queue.receive(maximum: 12)
    #expect(leases.map(\.text).first == "\(secret) 0")
    #expect(try await queue.describe().counts.total == 12)
    #expect(leases.first?.message.content.attributes == [attribute])
    try await store.close()
  }

  /// Those of other groups are delivered; those behind it in its own are not.
  @Test func aGroupWaitsForItsMessageThatCannotBeOpened() async throws {
    var machine = Machine()
    var store = try machine.open()
    let queue = try await store.queue("q.fifo", QueueSettings(isFIFO: true))
    func send(_ text: String, _ group: String, key: String = "") async throws {
      try await queue.change(.init { $0.encryptionKey = key })
      try await queue.send(text, group: group, deduplicationID: text)
    }
    try await send("a1", "a")
    try await send("a2", "a", key: "other")
    try await send("a3", "a")
    try await send("b1", "b")
    try await store.close()
    machine.ring = try keyRing(keyLine("k"))
    store = try machine.open()
    let found = try #require(store.existingQueue("q.fifo"))
    #expect(try await found.receive(maximum: 10).map(\.text) == ["a1", "b1"])
    #expect(try await found.describe().counts.leased == 4)
    // A consumer passes over what it cannot open.
    machine.clock.advance(by: .seconds(31))
    store.timeHasMoved()
    var texts: [String] = []
    for try await lease in found.leases() {
      texts.append(lease.text)
      try await lease.delete()
      if lease.text == "b1" { break }
    }
    #expect(texts == ["a1", "b1"])
    try await store.close()
  }

  /// Dead letters, a move task, filtered moves and purges, a typed queue, a repeated send.
  @Test func everyWayOfAMessageIsOpen() async throws {
    var machine = Machine()
    machine.window = 1024
    let store = try machine.open()
    let dead = try await store.queue("dead")
    let queue = try await store.sealed {
      $0.deadLetterQueue = "dead"
      $0.maximumReceives = 1
    }
    let typed = queue.typed(TextCodec())
    for number in 0..<9 { try await typed.send("\(secret) \(number)", attributes: [attribute]) }
    let first = try await typed.receive(maximum: 9)
    #expect(try first.map { try $0.value } == (0..<9).map { "\(secret) \($0)" })
    try await first[0].lease.reject()
    for lease in first.dropFirst() { try await lease.lease.release() }
    _ = try await queue.receive(maximum: 9, wait: .zero)
    #expect(try await dead.describe().counts.visible == 9)
    let id = try #require(first.first?.lease.message.id)
    #expect(try await dead.message(id)?.content.body == Array("\(secret) 0".utf8))
    let purged = try await dead.purge {
      String(decoding: $0.content.body, as: UTF8.self).last == "8"
    }
    #expect(purged.done == 1)
    let moved = try await dead.move(to: queue) {
      String(decoding: $0.content.body, as: UTF8.self).last == "7"
    }
    #expect(moved.done == 1)
    let task: MoveTask = try await withCheckedThrowingContinuation { continuation in
      store.startMoveTask(from: dead.id, to: nil) { continuation.resume(with: $0) }
    }
    try await store.wait {
      store.moveTasks(of: dead.id).contains { $0.id == task.id && !$0.status.isActive }
    }
    let back = try await queue.receive(maximum: 9)
    #expect(Set(back.map(\.text)) == Set((0..<8).map { "\(secret) \($0)" }))
    for lease in back { #expect(lease.message.content.attributes == [attribute]) }
    #expect(try machine.files(with: secret) == [])
    try await store.transaction { transaction in
      transaction.delete(back[0])
      transaction.send(back[0].body, to: queue)
    }
    #expect(try await queue.receive().first?.text == back[0].text)
    try await store.close()
  }

  @Test func repetitionsAreKnownThoughTheyAreSealed() async throws {
    let machine = Machine()
    let store = try machine.open()
    let queue = try await store.sealed("q.fifo") {
      $0.isFIFO = true
      $0.deduplicatesByContent = true
    }
    let id = try await queue.send(secret, group: "g")
    #expect(try await queue.send(secret, group: "g") == id)
    #expect(try await queue.send(secret + "!", group: "g") != id)
    #expect(try await queue.receive(maximum: 3).map(\.text) == [secret, secret + "!"])
    try await store.close()
  }

  @Test func contentSaysNothingAboutKeysItWasNotSealedWith() async throws {
    var machine = Machine()
    var store = try machine.open()
    var queue = try await store.sealed()
    try await queue.send(secret)
    try await store.close()
    machine.ring = nil
    store = try machine.open()
    queue = try #require(store.existingQueue("q"))
    let seen = try #require(try await queue.peek().first)
    let plain = try await store.queue("plain")
    for result in try await plain.send(batch: [SendEntry(seen.content)]) { _ = try result.get() }
    let lease = try #require(try await plain.receive().first)
    #expect(lease.body == [] && lease.message.content.sealedWith == nil)
    try await store.close()
  }

  /// What was acknowledged is there after the power was lost, and opens; nothing is there in part.
  @Test(arguments: UInt64(0)..<20) func sealedSendsSurviveALossOfPower(seed: UInt64) async throws {
    let machine = Machine()
    let store = try machine.open()
    let queue = try await store.sealed()
    var chooser = SeededChooser(seed: seed)
    for round in 0..<8 {
      let entries = (0...chooser.choose(4)).map {
        SendEntry(MessageContent(body: Array("\(secret) \(round) \($0)".utf8)))
      }
      for result in try await queue.send(batch: entries) { _ = try result.get() }
      async let more = queue.send("\(secret) late \(round)")
      let crashed = machine.disk.crashed(choosing: &chooser, garbling: seed % 2 == 0)
      let again = try machine.open(on: crashed)
      var bodies: Set<String> = []
      try await #require(again.existingQueue("q")).walk { message in
        #expect(message.failure == nil)
        bodies.insert(String(decoding: message.content.body, as: UTF8.self))
        return true
      }
      for entry in entries {
        #expect(bodies.contains(String(decoding: entry.content.body, as: UTF8.self)))
      }
      try await again.close()
      _ = try await more
    }
    try await store.close()
  }
}
