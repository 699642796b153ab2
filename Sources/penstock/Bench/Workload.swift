// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Penstock

/// A load on an embedded store: who does what, how much of it at a time, and for how long.
struct Workload: Sendable {
  enum Kind: String, CaseIterable, ExpressibleByArgument, Encodable {
    /// `await`, one task per producer.
    case send
    /// The same through completions: no hop to a task and back.
    case sendByCompletion = "send-by-completion"
    case receive, cycle, mixed
    case fanIn = "fan-in"
    case fanInQueues = "fan-in-queues"
    case drain, groups, large

    var title: String {
      switch self {
      case .send: "send, awaited"
      case .sendByCompletion: "send, by completion"
      case .receive: "receive"
      case .cycle: "cycle: send, receive, delete"
      case .mixed: "mixed"
      case .fanIn: "fan-in, one queue"
      case .fanInQueues: "fan-in, a queue each"
      case .drain: "drain: receive, delete"
      case .groups: "FIFO groups"
      case .large: "send, large bodies"
      }
    }

    /// Whether there are those who send while it is measured.
    var produces: Bool { self != .receive && self != .drain }
    /// Whether others receive and delete meanwhile.
    var hasConsumers: Bool {
      self == .mixed || self == .fanIn || self == .fanInQueues || self == .groups
    }
    /// Whether bodies tell when they were sent, and which of their sender's they are.
    var isStamped: Bool { hasConsumers }
  }

  /// In words of the command line.
  enum Selection: ExpressibleByArgument {
    case one(Kind)
    case all

    init?(argument: String) {
      if argument == "all" {
        self = .all
      } else if let kind = Kind(rawValue: argument) {
        self = .one(kind)
      } else {
        return nil
      }
    }

    static var allValueStrings: [String] { ["all"] + Kind.allCases.map(\.rawValue) }

    var kinds: [Kind] {
      switch self {
      case .all: Kind.allCases
      case .one(let kind): [kind]
      }
    }
  }

  var kind: Kind
  var producers: Int
  var consumers: Int
  var batch: Int
  var body: Int
  var seconds: Double
  var warmUp: Double
  /// Requests in a second that are due, whatever is answered; nil for a closed loop.
  var rate: Double?
  /// Of `groups`.
  var groups: Int
  /// That are there before, of `receive` and `drain`.
  var messages: Int
  var durability: Durability

  /// Bytes that a stamp takes.
  static let stampSize = 16

  var title: String { kind == .large ? "send, \(sizeText(body)) each" : kind.title }

  /// Who has a request under way, at most one each.
  var lanes: Int { kind.produces ? producers : consumers }

  /// Bytes that a commit of one request has at least, in whole blocks; nil for one without.
  var block: Int? {
    switch kind {
    case .receive: nil
    // A record of 32 bytes, with its header.
    case .drain: roundUp(batch * 40, to: 4096)
    default: roundUp(batch * body, to: 4096)
    }
  }

  private func roundUp(_ value: Int, to unit: Int) -> Int { (value + unit - 1) / unit * unit }

  /// What is told of it: one part, or one for each side.
  func parts(_ name: String, _ produced: Measurement, _ consumed: Measurement) -> [Outcome.Part] {
    // What is behind the last full second is none.
    func part(
      _ name: String, _ part: Measurement, _ latency: String, isBound: Bool
    ) -> Outcome.Part {
      var measurement = part
      measurement.perSecond = Array(part.perSecond.prefix(max(1, Int(seconds))))
      return .init(name: name, measurement: measurement, latency: latency, isBound: isBound)
    }
    guard kind.hasConsumers else {
      return [
        part(name, kind.produces ? produced : consumed, "request", isBound: kind != .receive)
      ]
    }
    return [
      part(name + ": sends", produced, "request", isBound: true),
      part(name + ": receives", consumed, "delivery", isBound: false),
    ]
  }

  /// What was measured, once everything that was checked is right.
  struct Outcome {
    struct Part {
      var name: String
      var measurement: Measurement
      /// What its latencies are of.
      var latency: String
      /// Whether the device's own rate is a limit to it.
      var isBound: Bool
    }

    var parts: [Part]
    /// From the counters of the store; nil of one that is behind an API.
    var recordsPerCommit: Double?
    var syncsPerSecond: Double?
    /// Messages that were there at the end of the time and are received and deleted after it.
    var left: Int
  }
}
