// SPDX-License-Identifier: Apache-2.0

/// What all systems do in turn.
struct PeerWork: Hashable, Sendable {
  var cycles: Bool
  var producers: Int
  /// Messages per commit.
  var batch: Int

  /// As on the command line: `send-64x1`.
  var name: String { "\(cycles ? "cycle" : "send")-\(producers)x\(batch)" }

  var title: String {
    let who = cycles ? (producers == 1 ? "worker" : "workers") : "producer"
    let all = !cycles && producers > 1 ? "s" : ""
    return (cycles ? "send, receive, delete: " : "send: ") + "\(producers) \(who)\(all), "
      + (batch == 1 ? "1 message each" : "batches of \(batch)")
  }

  static let all = [
    PeerWork(cycles: false, producers: 1, batch: 1),
    PeerWork(cycles: false, producers: 1, batch: 64),
    PeerWork(cycles: false, producers: 1, batch: 256),
    PeerWork(cycles: false, producers: 64, batch: 1),
    PeerWork(cycles: false, producers: 16, batch: 10),
    PeerWork(cycles: true, producers: 1, batch: 1),
    PeerWork(cycles: true, producers: 1, batch: 64),
    PeerWork(cycles: true, producers: 16, batch: 10),
  ]
}

/// A queue beside others, each of them durable in its own way.
protocol PeerSystem {
  var name: String { get }
  /// What an acknowledgement follows, in a few words.
  var durability: String { get }
  /// Whether it syncs before it acknowledges; what does not is told apart.
  var isDurable: Bool { get }

  /// Runs a workload on a new queue, and removes the queue. Nil when the system has no such thing.
  func run(_ work: PeerWork, queue: String, _ plan: LoadPlan) async throws -> Measurement?
}

extension PeerSystem {
  var isDurable: Bool { true }
}

/// What a connection is for: its greeting makes the queue, or removes it, or is ready for rounds.
enum PeerRole {
  case make
  case work
  case drop
}

/// A server that is spoken to over TCP.
struct WirePeer: PeerSystem {
  typealias Dialogue = (_ role: PeerRole, _ queue: String, _ work: PeerWork) -> any LoadProtocol

  var name: String
  var durability: String
  var isDurable = true
  var address: LoadAddress
  var dialogue: Dialogue
  /// Messages of one request at most.
  var largestBatch = Int.max

  func run(_ work: PeerWork, queue: String, _ plan: LoadPlan) async throws -> Measurement? {
    guard work.batch <= largestBatch else { return nil }
    let greeting = LoadPlan(seconds: 0)
    _ = try LoadLoop.run([dialogue(.make, queue, work)], to: address, greeting)
    let result = try LoadLoop.run(
      (0..<work.producers).map { _ in dialogue(.work, queue, work) }, to: address, plan)
    _ = try LoadLoop.run([dialogue(.drop, queue, work)], to: address, greeting)
    return result
  }

  /// One of those that `penstock bench peers` knows.
  init?(kind: String, at address: LoadAddress, body: Int) {
    let payload = [UInt8](repeating: 0x78, count: body)
    (name, self.address) = (kind, address)
    switch kind {
    case "penstock-http":
      durability = "fdatasync before the answer; leases written, not synced"
      largestBatch = 10
      let target = WireTarget(kind, address)
      dialogue = { role, queue, work in
        SQSPeer(role, target, queue: queue, work, body: body)
      }
    case "redis":
      durability = "appendfsync always: fdatasync before the answer, also of claims"
      dialogue = { RedisLoad($0, $1, $2, payload) }
    case "beanstalkd":
      durability = "-f 0: fsync before the answer of put and delete; reserves are not kept"
      dialogue = { BeanstalkLoad($0, $1, $2, payload) }
    case "postgresql":
      durability = "fsync, synchronous_commit on: fdatasync before the answer; claims not awaited"
      dialogue = { PostgresLoad($0, $1, $2, payload) }
    case "rabbitmq":
      durability = "quorum queue of one node: fdatasync before the confirm; acks have no answer"
      dialogue = { AMQPLoad($0, $1, $2, payload) }
    case "nats", "nats-synced":
      isDurable = kind == "nats-synced"
      durability =
        isDurable
        ? "file storage, sync_interval always: synced before the answer"
        : "file storage, synced every 2 minutes: an answer is not on disk"
      dialogue = { NATSLoad($0, $1, $2, payload) }
    default: return nil
    }
  }

  static let kinds = [
    "penstock-http", "redis", "beanstalkd", "postgresql", "rabbitmq", "nats", "nats-synced",
  ]
}

/// A connection to a server of the SQS API, whose queue is made and removed like the others'.
final class SQSPeer: LoadProtocol {
  private let target: WireTarget
  private let role: PeerRole
  private let queue: String
  private let load: HTTPLoad

  var reconnects: Bool { role == .work }
  var closes: Bool { role == .work && load.closes }

  init(_ role: PeerRole, _ target: WireTarget, queue: String, _ work: PeerWork, body: Int) {
    (self.role, self.target, self.queue) = (role, target, queue)
    load = HTTPLoad(
      work.cycles ? .cycle : .send, target, queue: queue, body: body, batch: work.batch)
  }

  func connected(_ output: inout LoadOutput) -> Bool {
    switch role {
    case .make: output.put(target.request("CreateQueue", #"{"QueueName":"\#(queue)"}"#))
    case .drop: output.put(target.request("DeleteQueue", #"{"QueueUrl":"\#(queue)"}"#))
    case .work: return true
    }
    return false
  }

  func begin(_ output: inout LoadOutput) { load.begin(&output) }

  func read(_ input: UnsafeRawBufferPointer, _ output: inout LoadOutput) throws -> LoadAnswer {
    if role == .work { return try load.read(input, &output) }
    guard let answer = try HTTPAnswer(input) else { return .partial }
    guard answer.status == 200 else {
      throw LoadError("an answer was \(answer.status): \(input.text(answer.body))")
    }
    return .ended(answer.body.upperBound, messages: 0)
  }
}
