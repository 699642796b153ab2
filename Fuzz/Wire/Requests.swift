// SPDX-License-Identifier: Apache-2.0
import FuzzSupport
import Penstock
import PenstockSQS
import PenstockTesting
import Synchronization

/// The decoder of every action, and the JSON under them.
///
/// The requests go to the service as they would from a socket. Its store is closed: it knows its
/// queue and its handles, so every decoder runs to its end, and then changes nothing, so that no
/// input depends on those before it.
enum Requests {
  static let actions = [
    "CreateQueue", "GetQueueUrl", "ListQueues", "DeleteQueue", "GetQueueAttributes",
    "SetQueueAttributes", "PurgeQueue", "SendMessage", "SendMessageBatch", "ReceiveMessage",
    "DeleteMessage", "DeleteMessageBatch", "ChangeMessageVisibility",
    "ChangeMessageVisibilityBatch", "ListDeadLetterSourceQueues", "StartMessageMoveTask",
    "ListMessageMoveTasks", "CancelMessageMoveTask", "AddPermission", "RemovePermission",
    "TagQueue", "UntagQueue", "ListQueueTags",
  ]

  /// What stands for `$Q` and `$H` in a body: no fuzzer guesses a handle.
  static let queueURL = Array("http://localhost:9324/000000000000/orders".utf8)

  static let target: (service: SQSService, handle: [UInt8]) = {
    let environment = StoreEnvironment(
      fileSystem: SimulatedFileSystem(), clock: SimulatedClock(), random: StableRandom(seed: 1))
    var options = StoreOptions()
    options.segmentSize = 64 * 1024
    do {
      let store = try Store.openBlocking(at: "/store", options: options, environment: environment)
      let queue = wait { store.createQueue("orders", QueueSettingsChange(), $0) }
      wait { store.close($0) }
      let handle = LeaseHandle(queue: queue.id, slot: 0, message: 3, token: 4)
      return (SQSService(store: store), Array(store.receiptHandle(for: handle).utf8))
    } catch {
      complain("a store cannot be opened: \(error)")
      fatalError("no store to fuzz")
    }
  }()

  /// Blocks until a call of the store has ended well.
  @discardableResult
  private static func wait<Value: Sendable>(
    _ call: (@escaping Completion<Value>) -> Void
  ) -> Value {
    let bell = Bell<Value>()
    call { bell.ring($0) }
    return bell.wait()
  }

  static func run(_ data: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
    var input = Input(data, size)
    let choice = Int(input.byte()) % 64
    var headers = ["content-type": "application/x-amz-json-1.0", "host": "localhost:9324"]
    var method = "POST"
    var path = "/"
    switch choice {
    case 63:
      json(input.rest())
      return 0
    case 32..<56:
      headers["content-type"] = "application/x-www-form-urlencoded"
      path = "/000000000000/orders?Action=" + actions[choice % actions.count]
    case 56:
      headers["content-type"] = "application/x-www-form-urlencoded"
      path = "/?" + text(&input)
    case 57..<60:
      // Everything outside the body.
      headers["x-amz-target"] = text(&input)
      headers["host"] = text(&input)
      headers["content-type"] = text(&input)
      headers["x-amzn-trace-id"] = text(&input)
      if choice == 59 { method = text(&input) }
    default:
      headers["x-amz-target"] = "AmazonSQS." + actions[choice % actions.count]
    }
    answer(
      SQSRequest(
        method: method, target: path, headers: Headers(values: headers),
        body: filledIn(input.rest())))
    return 0
  }

  private static func text(_ input: inout Input) -> String {
    String(decoding: input.take(Int(input.byte())), as: UTF8.self)
  }

  /// Sends a request and looks at the answer, which comes before the call returns.
  private static func answer(_ request: SQSRequest) {
    let replies = Mutex<[SQSReply]>([])
    let ticket = target.service.handle(request) { reply in replies.withLock { $0.append(reply) } }
    if let ticket { target.service.cancel(ticket) }
    // Taken out: a reply may hold the completion that put it there.
    let all = replies.withLock { replies in
      defer { replies = [] }
      return replies
    }
    check(all.count == 1, "\(all.count) answers to one request")
    guard let response = all.first?.response() else { return }
    check((200..<600).contains(response.status), "status \(response.status)")
    check(
      response.status != 500,
      "an internal failure: \(String(decoding: response.body, as: UTF8.self))")
    let isJSON = response.headers.contains {
      $0.name == "Content-Type" && $0.value.hasSuffix("json-1.0")
    }
    for (name, value) in response.headers {
      check(
        (name + value).utf8.allSatisfy { $0 >= 0x20 && $0 < 0x7f }, "a header \(name): \(value)")
    }
    if !isJSON { return checkElements(response.body) }
    guard !response.body.isEmpty else { return }
    do throws(JSONError) {
      check(try JSONParser.parse(response.body).root.kind == .object, "an answer is no object")
    } catch { check(false, "an answer is not JSON: \(error.reason) at \(error.offset)") }
  }

  /// Every element that begins ends, in order; text holds no markup of the client's.
  private static func checkElements(_ body: [UInt8]) {
    guard let xml = String(validating: body, as: UTF8.self) else {
      return check(false, "XML that is not UTF-8")
    }
    guard xml.hasPrefix("<?xml") else { return }
    var open: [Substring] = []
    for part in xml.split(separator: "<").dropFirst() {
      guard let end = part.firstIndex(of: ">") else { return check(false, "a tag without an end") }
      let tag = part[..<end]
      if tag.hasPrefix("/") {
        check(open.popLast() == tag.dropFirst(), "element \(tag) ends another")
      } else if !tag.hasSuffix("/") {
        open.append(tag.prefix { $0 != " " })
      }
    }
    check(open.isEmpty, "elements without an end: \(open)")
  }

  private static func filledIn(_ body: [UInt8]) -> [UInt8] {
    guard body.contains(UInt8(ascii: "$")) else { return body }
    var result: [UInt8] = []
    var position = 0
    while position < body.count {
      let next = position + 1 < body.count ? body[position + 1] : 0
      switch (body[position], next) {
      case (UInt8(ascii: "$"), UInt8(ascii: "Q")): result += queueURL
      case (UInt8(ascii: "$"), UInt8(ascii: "H")): result += target.handle
      default:
        result.append(body[position])
        position -= 1
      }
      position += 2
    }
    return result
  }

  // MARK: JSON

  /// What is parsed, and written again, is parsed to the same.
  private static func json(_ bytes: [UInt8]) {
    do throws(JSONError) {
      let once = rewritten(try JSONParser.parse(bytes).root)
      do throws(JSONError) {
        check(rewritten(try JSONParser.parse(once).root) == once, "JSON changes when rewritten")
      } catch { check(false, "rewritten JSON is refused: \(error.reason) at \(error.offset)") }
    } catch {
      check(error.offset <= bytes.count, "an error behind the end")
    }
  }

  /// The value without blanks; numbers and nulls, which the writer has no use for, as strings.
  private static func rewritten(_ node: JSONNode) -> [UInt8] {
    var writer = JSONWriter()
    write(node, to: &writer)
    return writer.bytes
  }

  private static func write(_ node: JSONNode, to writer: inout JSONWriter) {
    switch node.kind {
    case .null: writer.string("null")
    case .yes: writer.bool(true)
    case .no: writer.bool(false)
    case .number: writer.string(node.integer.map { String($0) } ?? "number")
    case .string:
      writer.string(node.stringBytes)
      expectSame(node)
    case .array:
      writer.beginArray()
      for element in node.elements { write(element, to: &writer) }
      writer.endArray()
    case .object:
      writer.beginObject()
      for member in node.members {
        writer.key(member.key.string)
        write(member.value, to: &writer)
        let found = node.member(member.key.string)
        check(found != nil || hasNull(node, member.key.string), "a member is not found by its name")
      }
      writer.endObject()
    }
  }

  /// A name counts with its last value, and a null counts as absent.
  private static func hasNull(_ node: JSONNode, _ name: String) -> Bool {
    let last = node.members.last { $0.key.stringBytes.elementsEqual(name.utf8) }
    return last == nil || last?.value.kind == .null
  }

  private static func expectSame(_ node: JSONNode) {
    var writer = JSONWriter()
    writer.string(node.stringBytes)
    do throws(JSONError) {
      let again = try JSONParser.parse(writer.bytes).root
      check(again.string.utf8.elementsEqual(node.string.utf8), "a string changes when rewritten")
    } catch { check(false, "a written string is refused: \(error.reason)") }
  }
}

private struct Headers: SQSHeaders {
  var values: [String: String]
  func first(_ name: String) -> String? { values[name.lowercased()] }
  func all(_ name: String) -> [String] { first(name).map { [$0] } ?? [] }
  var names: [String] { values.keys.map { $0.lowercased() } }
}
