// SPDX-License-Identifier: Apache-2.0
import Foundation
import Synchronization

/// Takes everything out of a queue and deletes it, so that what is missing shows.
final class Drain: Sendable {
  static let workers = 4
  /// How long a receive of the drain hides its messages: longer than any drain takes.
  static let visibility = 600
  /// How long a drain waits for messages that have to be there, after the last one came.
  static let patience = 4.0
  /// The time of a drain, which bounds a run against a server that is very slow.
  static let longest = 180.0

  private let endpoint: Endpoint
  private let queue: String
  private let ledger: SharedLedger
  private let seed: UInt64
  private let leasesEnd: Date
  private let state = Mutex(State())

  struct Result: Sendable {
    var received = 0
    var refusedDeletes = 0
    /// Set when the server ended or stopped answering in between.
    var failure: String?
    /// Set when the time was over before the queue was empty.
    var isCutShort = false
  }

  private struct State {
    var result = Result()
    var lastNews = Date()
  }

  /// `leasesEnd` is when the last lease or delay of the load ends at the latest.
  init(_ server: RunningServer, _ ledger: SharedLedger, seed: UInt64, leasesEnd: Date) {
    endpoint = server.endpoint
    queue = server.queue
    self.ledger = ledger
    self.seed = seed
    self.leasesEnd = leasesEnd
  }

  func run(stop: StopFlag, until deadline: Date) -> Result {
    let group = DispatchGroup()
    for _ in 0..<Self.workers {
      group.enter()
      Thread.detachNewThread {
        do throws(NoAnswer) { try self.work(stop, deadline) } catch {
          self.state.withLock { $0.result.failure = "\(error)" }
        }
        group.leave()
      }
    }
    group.wait()
    return state.withLock { $0.result }
  }

  private func work(_ stop: StopFlag, _ deadline: Date) throws(NoAnswer) {
    let client = SQSClient(endpoint)
    while !stop.isSet, state.withLock({ $0.result.failure }) == nil {
      let asked = ledger.with { $0.mark() }
      let began = Date()
      let answer = try client.receive(
        queue, maximum: 10, visibility: Self.visibility, wait: began < leasesEnd ? 1 : 0)
      let messages = answer ?? []
      var found: [(number: Int, handle: String)] = []
      for message in messages {
        if let number = ledger.take(message, seed: seed, asked: asked, draining: true) {
          found.append((number, message.handle))
        }
      }
      let refused = try ledger.delete(found, from: queue, client)
      state.withLock {
        $0.result.received += messages.count
        $0.result.refusedDeletes += refused
        if !messages.isEmpty { $0.lastNews = Date() }
      }
      if Date() > deadline {
        state.withLock { $0.result.isCutShort = true }
        return
      }
      guard messages.isEmpty else { continue }
      // Empty, and asked after the last lease had ended: whoever is missing now stays so, unless
      // the system needs longer to show a message again.
      if began > leasesEnd, answer != nil, ledger.with({ $0.missing }) == 0 { return }
      let news = max(state.withLock { $0.lastNews }, leasesEnd)
      if -news.timeIntervalSinceNow > Self.patience { return }
      Thread.sleep(forTimeInterval: 0.02)
    }
  }
}
