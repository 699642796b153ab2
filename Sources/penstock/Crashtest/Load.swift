// SPDX-License-Identifier: Apache-2.0
import Foundation
import PenstockTesting
import Synchronization

/// Set once, from any thread.
final class StopFlag: Sendable {
  private let flag = Atomic(false)
  var isSet: Bool { flag.load(ordering: .acquiring) }
  func set() { flag.store(true, ordering: .releasing) }
}

/// The ledger that the workers of a phase share.
final class SharedLedger: Sendable {
  private let value: Mutex<Ledger>
  init(_ ledger: Ledger = Ledger()) { value = Mutex(ledger) }
  func with<T: Sendable>(_ body: (inout Ledger) -> T) -> T { value.withLock { body(&$0) } }
  var copy: Ledger { value.withLock { $0 } }
}

/// Producers and consumers against one server, until they are stopped or it is gone.
struct Load: Sendable {
  static let producers = 4
  static let consumers = 3
  /// The longest a message is hidden by a receive, a change or a delay of the load, in seconds.
  static let longestLease = 2
  /// Most entries of the last commit that several workers can have filled together.
  static let window = producers * 10 + consumers * 10

  var endpoint: Endpoint
  var queue: String
  var ledger: SharedLedger
  var seed: UInt64
  var round: Int
  /// Messages that all producers together send at most.
  var limit: Int
  var shape = Shape.mixed

  enum Shape: Sendable {
    case mixed
    /// Sends alone, of about 8 KiB each, one after another.
    case fill
  }

  /// Runs until `stop` is set; `then` runs on this thread beside the workers and ends with
  /// setting it.
  func run(stop: StopFlag, while then: () throws -> Void) rethrows {
    let group = DispatchGroup()
    let count = shape == .fill ? Self.producers : Self.producers + Self.consumers
    for worker in 0..<count {
      group.enter()
      Thread.detachNewThread {
        let random = StableRandom(
          seed: seed ^ (UInt64(round) << 16 &+ UInt64(worker + 1)) &* 0xd134_2543_de82_ef95)
        let client = SQSClient(endpoint)
        if worker < Self.producers {
          produce(client, random, worker, stop)
        } else {
          consume(client, random, stop)
        }
        group.leave()
      }
    }
    defer {
      stop.set()
      group.wait()
    }
    try then()
  }

  private func produce(
    _ client: SQSClient, _ random: StableRandom, _ worker: Int, _ stop: StopFlag
  ) {
    var left = limit / Self.producers
    var refusals = 0
    while !stop.isSet, left > 0 {
      let count = shape == .fill || random.chance(1, of: 2) ? 1 : 2 + random.below(9)
      let sizes = (0..<count).map { _ in shape == .fill ? 8000 : Self.size(random) }
      let delay = shape == .mixed && random.chance(1, of: 20) ? 1 : 0
      left -= count
      // Counted as submitted before a byte leaves this process.
      let numbers = ledger.with { ledger in
        (0..<count).map { _ in ledger.submit(producer: worker, round: round) }
      }
      let bodies = zip(numbers, sizes).map { number, size in
        MessageBody(seed: seed, producer: worker, number: number, size: size).text
      }
      do {
        let outcome = try client.send(bodies, to: queue, delay: delay)
        ledger.with { ledger in
          for (number, id) in zip(numbers, outcome.ids) {
            if let id { ledger.acknowledge(number, id: id) } else { ledger.reject(number) }
          }
          if outcome.wrongDigest { ledger.seeUnknown("a send was answered with a wrong digest") }
        }
        refusals = outcome.ids.contains { $0 == nil } ? refusals + 1 : 0
        if refusals > 0 {
          if shape == .fill, refusals >= 10 { return }
          Thread.sleep(forTimeInterval: 0.02)
        }
      } catch {
        // The server is gone, or will answer the next one.
        Thread.sleep(forTimeInterval: 0.01)
      }
    }
  }

  private static func size(_ random: StableRandom) -> Int {
    switch random.below(20) {
    case 0..<8: random.below(200)
    case 8..<15: random.below(2000)
    case 15..<19: random.below(8000)
    default: random.below(24_000)
    }
  }

  private func consume(_ client: SQSClient, _ random: StableRandom, _ stop: StopFlag) {
    while !stop.isSet {
      do {
        let asked = ledger.with { $0.mark() }
        let messages = try client.receive(
          queue, maximum: 1 + random.below(10), visibility: 1 + random.below(Self.longestLease),
          wait: random.below(2))
        var doomed: [(number: Int, handle: String)] = []
        for message in messages ?? [] {
          guard let number = ledger.take(message, seed: seed, asked: asked, draining: false) else {
            continue
          }
          switch random.below(20) {
          case 0..<10: doomed.append((number, message.handle))
          case 10..<13:
            _ = try client.call(
              "ChangeMessageVisibility",
              [
                "QueueUrl": queue, "ReceiptHandle": message.handle,
                "VisibilityTimeout": random.below(Self.longestLease + 1),
              ])
          default: break
          }
        }
        try ledger.delete(doomed, from: queue, client)
        if messages?.isEmpty ?? true { Thread.sleep(forTimeInterval: 0.01) }
      } catch {
        Thread.sleep(forTimeInterval: 0.01)
      }
    }
  }
}

extension SharedLedger {
  /// Records a delivery. Returns its number, or nil when it is none of this phase's messages.
  func take(_ message: Delivery, seed: UInt64, asked: UInt64, draining: Bool) -> Int? {
    do throws(MessageBody.Failure) {
      let body = try MessageBody(text: message.body, seed: seed)
      return with { ledger in
        if !message.digestIsRight {
          ledger.seeUnknown("message \(body.number) came with a wrong digest")
        }
        let isOurs = ledger.see(body.number, id: message.id, asked: asked, draining: draining)
        return isOurs ? body.number : nil
      }
    } catch {
      with { $0.seeUnknown("a body that is \(error): \(message.body.prefix(60))") }
      return nil
    }
  }

  /// Deletes, and records what was answered. Returns how many were refused.
  @discardableResult
  func delete(
    _ messages: [(number: Int, handle: String)], from queue: String, _ client: SQSClient
  ) throws(NoAnswer) -> Int {
    guard !messages.isEmpty else { return 0 }
    with { ledger in
      for message in messages { ledger.submitDelete(message.number) }
    }
    let done = try client.delete(messages.map(\.handle), from: queue)
    with { ledger in
      for (message, isDone) in zip(messages, done) where isDone {
        ledger.acknowledgeDelete(message.number)
      }
    }
    return done.count { !$0 }
  }
}
