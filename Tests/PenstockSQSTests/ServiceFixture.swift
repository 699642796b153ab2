// SPDX-License-Identifier: Apache-2.0
import Foundation
import Penstock
import PenstockSQS
import Testing

struct TestHeaders: SQSHeaders {
  var values: [String: String]
  func first(_ name: String) -> String? { values[name.lowercased()] }
  func all(_ name: String) -> [String] { first(name).map { [$0] } ?? [] }
  var names: [String] { values.keys.map { $0.lowercased() } }
}

/// A response with its body taken apart by another JSON reader than ours.
struct Answer {
  var status: Int
  var headers: [String: String]
  var body: [UInt8]

  init(_ response: SQSResponse) {
    status = response.status
    headers = Dictionary(
      response.headers.map { ($0.name.lowercased(), $0.value) }, uniquingKeysWith: { $1 })
    body = response.body
  }

  var text: String { String(decoding: body, as: UTF8.self) }

  var object: [String: Any] {
    (try? JSONSerialization.jsonObject(with: Data(body))) as? [String: Any] ?? [:]
  }

  subscript(_ name: String) -> String? { object[name] as? String }

  /// The name of the error without its namespace.
  var error: String? {
    self["__type"].flatMap { $0.split(separator: "#").last.map(String.init) }
  }

  var message: String? { self["message"] }

  func objects(_ name: String) -> [[String: Any]] { object[name] as? [[String: Any]] ?? [] }
}

/// The service over a store in a directory of its own.
struct ServiceFixture {
  static let base = "http://localhost:9324/000000000000/"
  let store: Store
  let service: SQSService

  /// Runs `body` with an open store that is closed and removed afterwards.
  static func run(_ body: (ServiceFixture) async throws -> Void) async throws {
    let directory = FileManager.default.temporaryDirectory
      .appendingPathComponent("penstock-sqs-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: directory) }
    let store = try await Store.open(at: directory.path)
    let fixture = ServiceFixture(store: store, service: SQSService(store: store))
    do {
      try await body(fixture)
    } catch {
      try? await store.close()
      throw error
    }
    try await store.close()
  }

  /// Runs `body` with a queue named `q`.
  static func runWithQueue(
    _ attributes: String = "{}", _ body: (ServiceFixture) async throws -> Void
  ) async throws {
    try await run { fixture in
      let answer = await fixture.call(
        "CreateQueue", #"{"QueueName":"q","Attributes":\#(attributes)}"#)
      try #require(answer.status == 200, "\(answer.text)")
      try await body(fixture)
    }
  }

  func send(_ request: SQSRequest) async -> Answer {
    await withCheckedContinuation { continuation in
      _ = service.handle(request) { continuation.resume(returning: Answer($0.response())) }
    }
  }

  /// Calls an action with a body as given; `$Q` in it stands for the URL of queue `q`.
  func call(
    _ action: String, _ body: String, headers: [String: String] = [:]
  ) async -> Answer {
    var values = [
      "content-type": "application/x-amz-json-1.0", "x-amz-target": "AmazonSQS." + action,
      "host": "localhost:9324",
    ]
    values.merge(headers) { $1 }
    let text = body.replacingOccurrences(of: "$Q", with: Self.base + "q")
    return await send(
      SQSRequest(
        method: "POST", target: "/", headers: TestHeaders(values: values),
        body: Array(text.utf8)))
  }

  func receive(_ members: String = "") async -> [[String: Any]] {
    let all = #""MessageSystemAttributeNames":["All"],"MessageAttributeNames":["All"]"#
    let answer = await call(
      "ReceiveMessage", #"{"QueueUrl":"$Q",\#(all)\#(members.isEmpty ? "" : "," + members)}"#)
    return answer.objects("Messages")
  }
}

/// One row of a table of refusals.
struct Refusal: CustomTestStringConvertible, Sendable {
  var rule: String
  var action: String
  var body: String
  var status: Int
  var type: String
  var queryCode: String
  var message: String?

  init(
    _ rule: String, _ action: String, _ body: String, _ status: Int, _ type: String,
    _ queryCode: String, _ message: String? = nil
  ) {
    (self.rule, self.action, self.body, self.status) = (rule, action, body, status)
    (self.type, self.queryCode, self.message) = (type, queryCode, message)
  }

  /// An InvalidParameterValue.
  init(_ rule: String, _ action: String, _ body: String, invalid message: String) {
    self.init(
      rule, action, body, 400, "com.amazon.coral.service#InvalidParameterValueException",
      "InvalidParameterValue", message)
  }

  /// A MissingParameter.
  init(_ rule: String, _ action: String, _ body: String, missing name: String) {
    self.init(
      rule, action, body, 400, "com.amazon.coral.service#MissingRequiredParameterException",
      "MissingParameter", "The request must contain the parameter \(name).")
  }

  /// A SerializationException.
  init(_ rule: String, _ action: String, _ body: String, malformed message: String?) {
    self.init(
      rule, action, body, 400, "com.amazon.coral.service#SerializationException",
      "MalformedInput", message)
  }

  var testDescription: String { rule }

  func check(_ fixture: ServiceFixture) async {
    let answer = await fixture.call(action, body)
    #expect(answer.status == status, "\(rule)")
    #expect(answer["__type"] == type, "\(rule)")
    #expect(answer.headers["x-amzn-query-error"] == queryCode + ";Sender", "\(rule)")
    #expect(answer.headers["content-type"] == "application/x-amz-json-1.0")
    #expect(answer.headers["x-amzn-requestid"]?.count == 36)
    if let message { #expect(answer.message == message, "\(rule)") }
  }
}
