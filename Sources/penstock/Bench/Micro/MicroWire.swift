// SPDX-License-Identifier: Apache-2.0
import Foundation
import Penstock
import PenstockSQS
import PenstockSystem
import Synchronization

/// Headers as the server's own: a list that is searched.
private struct MicroHeaders: SQSHeaders {
  var fields: [(name: String, value: String)]

  func first(_ name: String) -> String? {
    fields.first { $0.name.lowercased() == name }?.value
  }
  func all(_ name: String) -> [String] {
    fields.filter { $0.name.lowercased() == name }.map(\.value)
  }
  var names: [String] { fields.map { $0.name.lowercased() } }
}

private let text = String(repeating: "x", count: 1024)

private func request(_ action: String, _ body: String) -> SQSRequest {
  SQSRequest(
    method: "POST", target: "/",
    headers: MicroHeaders(fields: [
      ("host", "localhost:9324"), ("content-type", "application/x-amz-json-1.0"),
      ("x-amz-target", "AmazonSQS.\(action)"),
    ]), body: Array(body.utf8), remoteAddress: "127.0.0.1")
}

private let sending = request("SendMessage", #"{"QueueUrl":"q","MessageBody":"\#(text)"}"#)

/// Requests as they come, read and checked, without a store.
final class MicroWire {
  private static let batch = {
    let entries = (0..<10).map { #"{"Id":"\#($0)","MessageBody":"\#(text)"}"# }
    return Array(#"{"QueueUrl":"q","Entries":[\#(entries.joined(separator: ","))]}"#.utf8)
  }()

  private static let form = SQSRequest(
    method: "POST", target: "/",
    headers: MicroHeaders(fields: [("content-type", "application/x-www-form-urlencoded")]),
    body: Array("Action=SendMessage&Version=2012-11-05&QueueUrl=q&MessageBody=\(text)".utf8))

  private static let (keyID, secret) = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
  private static let now: Int64 = 1_768_478_400

  /// Of the time above.
  private static let signed = {
    let day = "20260115"
    var headers = [
      ("host", "localhost:9324"), ("content-type", "application/x-amz-json-1.0"),
      ("x-amz-date", "\(day)T120000Z"), ("x-amz-target", "AmazonSQS.SendMessage"),
    ]
    func with(_ signature: String) -> SQSRequest {
      let scope = "\(keyID)/\(day)/us-east-1/sqs/aws4_request"
      var request = sending
      request.headers = MicroHeaders(
        fields: headers + [
          (
            "authorization",
            "AWS4-HMAC-SHA256 Credential=\(scope), SignedHeaders=content-type;host;x-amz-date;"
              + "x-amz-target, Signature=\(signature)"
          )
        ])
      return request
    }
    let unsigned = with(String(repeating: "0", count: 64))
    return with(HotPaths.signature(of: unsigned, secret: secret) ?? "")
  }()

  var operations: [MicroOperation] {
    [
      .init(name: "JSON: parse a SendMessage of 1 KiB") { calls in
        var count = 0
        for _ in 0..<calls {
          count += try JSONParser.parse(sending.body).root.kind == .object ? 1 : 0
        }
        return count
      },
      .init(name: "JSON: parse a batch of 10 of 1 KiB", calls: 500) { calls in
        var count = 0
        for _ in 0..<calls {
          count += try JSONParser.parse(Self.batch).root.kind == .object ? 1 : 0
        }
        return count
      },
      .init(name: "Query: read a SendMessage of 1 KiB", calls: 500) { calls in
        var count = 0
        for _ in 0..<calls { count += HotPaths.read(form: Self.form) }
        guard count > calls else { throw BenchFailure("a form was not read") }
        return count
      },
      .init(name: "SigV4: verify a SendMessage of 1 KiB", calls: 500) { calls in
        let keys = try CredentialStore(
          parsing: """
            [default]
            aws_access_key_id = \(Self.keyID)
            aws_secret_access_key = \(Self.secret)
            """, region: "us-east-1", account: "123456789012")
        var count = 0
        for _ in 0..<calls {
          let verdict = SignatureVerdict(Self.signed, with: keys, nowSeconds: Self.now)
          if verdict == .signed(keyID: Self.keyID) { count += 1 }
        }
        guard count == calls else { throw BenchFailure("a signature was refused") }
        return count
      },
    ]
  }
}

/// Whole requests of a service over a store without syncs, one after the other, with their
/// responses.
final class MicroService {
  private let store: Store
  private let service: SQSService
  private let queue: Queue
  private var requests: [SQSRequest] = []
  private var replies: [SQSReply] = []

  init(_ root: String) async throws {
    var options = StoreOptions()
    options.durability = .written
    store = try await Store.open(at: root + "/service", options: options)
    service = SQSService(store: store)
    queue = try await store.queue("q")
    _ = try await store.queue("empty")
  }

  func close() async throws { try await store.close() }

  var operations: [MicroOperation] {
    let (sending, empty) = (
      sending, request("ReceiveMessage", #"{"QueueUrl":"empty","MaxNumberOfMessages":10}"#)
    )
    let receiving = request("ReceiveMessage", #"{"QueueUrl":"q"}"#)
    return [
      .init(
        name: "reply: a received message of 1 KiB",
        prepare: { _ in
          guard self.replies.isEmpty else { return }
          _ = try self.answer(sending)
          self.replies = [try self.reply(receiving)]
        }
      ) { calls in
        var size = 0
        for _ in 0..<calls { size += self.replies[0].response().body.count }
        guard size > calls * 1024 else { throw BenchFailure("a reply has no message") }
        return size
      },
      .init(name: "service: SendMessage of 1 KiB", calls: 500, prepare: clear) { calls in
        try self.answer(sending, calls)
      },
      .init(name: "service: ReceiveMessage, nothing there", calls: 2000) { calls in
        try self.answer(empty, calls)
      },
      .init(
        name: "service: ReceiveMessage of 1 KiB", calls: 500,
        prepare: {
          try await self.clear()
          _ = try self.answer(sending, $0)
        }
      ) { calls in
        let size = try self.answer(receiving, calls)
        guard size > calls * 1024 else { throw BenchFailure("a reply has no message") }
        return size
      },
      .init(
        name: "service: DeleteMessage", calls: 500,
        prepare: {
          try await self.clear()
          _ = try self.answer(sending, $0)
          let leases = try await self.queue.receive(maximum: $0)
          self.requests = leases.map {
            let handle = self.store.receiptHandle(for: $0.message.handle)
            return request("DeleteMessage", #"{"QueueUrl":"q","ReceiptHandle":"\#(handle)"}"#)
          }
          guard self.requests.count == $0 else { throw BenchFailure("messages are missing") }
        }
      ) { calls in
        var size = 0
        for request in self.requests { size += try self.answer(request) }
        return size
      },
    ]
  }

  /// Deletes what is there of the rounds before.
  private func clear(_ calls: Int = 0) async throws {
    try await queue.purge()
  }

  private func answer(_ request: SQSRequest, _ calls: Int) throws -> Int {
    var size = 0
    for _ in 0..<calls { size += try answer(request) }
    return size
  }

  private final class Answer: Sendable {
    let bell = Doorbell()
    let reply = Mutex<SQSReply?>(nil)
  }
  private let answer = Answer()

  /// Waits for the reply on this thread: tasks would add what they cost.
  private func reply(_ request: SQSRequest) throws -> SQSReply {
    _ = service.handle(request) { [answer] reply in
      answer.reply.withLock { $0 = reply }
      answer.bell.ring()
    }
    answer.bell.wait()
    guard let reply = answer.reply.withLock({ $0 }) else {
      throw BenchFailure("a request has no reply")
    }
    return reply
  }

  /// The size of the body.
  private func answer(_ request: SQSRequest) throws -> Int {
    let response = try reply(request).response()
    guard response.status == 200 else {
      throw BenchFailure("an answer was \(String(decoding: response.body, as: UTF8.self))")
    }
    return response.body.count
  }
}
