// SPDX-License-Identifier: Apache-2.0
import Penstock
import Testing

@testable import penstock

/// What the load generator makes of answers, and when it asks.
@Suite struct LoadTests {
  /// What a dialogue makes of bytes that are there at once, and how many it leaves.
  private static func answers(
    _ dialogue: any LoadProtocol, _ bytes: [UInt8], _ output: inout LoadOutput
  ) throws -> [LoadAnswer] {
    var answers: [LoadAnswer] = []
    var rest = bytes[...]
    while !rest.isEmpty {
      let answer = try rest.withUnsafeBytes { try dialogue.read($0, &output) }
      switch answer {
      case .partial: return answers + [.partial]
      case .taken(let count), .ended(let count, _), .passed(let count):
        rest = rest.dropFirst(count)
      }
      answers.append(answer)
    }
    return answers
  }

  /// The same bytes, one more at a time: it ends where it ends at once, and not before.
  private static func endsOnce(
    _ bytes: String, messages: Int, _ dialogue: () -> any LoadProtocol
  ) throws {
    let bytes = Array(bytes.utf8)
    for cut in 0...bytes.count {
      let one = dialogue()
      var output = LoadOutput()
      if one.connected(&output) { one.begin(&output) }
      var rest: [UInt8] = []
      var ended = 0
      for part in [bytes[..<cut], bytes[cut...]] {
        rest += part
        while !rest.isEmpty {
          let answer = try rest.withUnsafeBytes { try one.read($0, &output) }
          if case .partial = answer { break }
          if case .taken(let count) = answer { rest.removeFirst(count) }
          if case .ended(let count, let moved) = answer {
            rest.removeFirst(count)
            #expect(moved == messages)
            ended += 1
          }
        }
      }
      #expect(ended == 1, "cut at \(cut)")
      #expect(rest.isEmpty, "cut at \(cut)")
    }
  }

  private static let send = PeerWork(cycles: false, producers: 1, batch: 1)
  private static let sends = PeerWork(cycles: false, producers: 1, batch: 3)
  private static let cycle = PeerWork(cycles: true, producers: 1, batch: 1)
  private static let body: [UInt8] = [0x78]

  private static func http(_ text: String, _ count: Int = .max) throws -> HTTPAnswer? {
    try Array(text.utf8.prefix(count)).withUnsafeBytes { try HTTPAnswer($0) }
  }

  @Test func anHTTPAnswerEndsWithItsBody() throws {
    let text = "HTTP/1.1 200 OK\r\nserver: x\r\nCONTENT-length: 5\r\n\r\nhello"
    for count in 0..<text.utf8.count { #expect(try Self.http(text, count) == nil) }
    let answer = try #require(try Self.http(text + "HTTP/1.1 "))
    #expect(answer.status == 200)
    #expect(!answer.closes)
    #expect(answer.body.count == 5)
    #expect(answer.body.upperBound == text.utf8.count)
    let last = try Self.http("HTTP/1.1 404 x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    #expect(last?.closes == true)
    #expect(last?.status == 404)
    #expect(throws: LoadError.self) { try Self.http("HTTP/1.1 200 OK\r\n\r\n") }
    #expect(throws: LoadError.self) { try Self.http("SSH-2.0-OpenSSH\r\n") }
  }

  @Test func handlesStandAsTheyStoodInTheAnswer() {
    let text = #"{"Messages":[{"ReceiptHandle" : "a\/b="},{"Body":"","ReceiptHandle":"c"}]}"#
    let handles = Array(text.utf8).withUnsafeBytes { HTTPLoad.handles(in: $0) }
    #expect(handles == [#"a\/b="#, "c"])
  }

  @Test func aCycleDeletesWhatItReceived() throws {
    let target = WireTarget("x", LoadAddress(host: "127.0.0.1", port: 1))
    func answer(_ body: String) -> String {
      "HTTP/1.1 200 OK\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
    }
    let load = HTTPLoad(.cycle, target, queue: "q", body: 1, batch: 1)
    var output = LoadOutput()
    load.begin(&output)
    _ = try Self.answers(load, Array(answer("{}").utf8), &output)
    output.sent = output.bytes.count
    _ = try Self.answers(
      load, Array(answer(#"{"Messages":[{"ReceiptHandle":"h1"}]}"#).utf8), &output)
    #expect(String(decoding: output.bytes, as: UTF8.self).hasSuffix(#""ReceiptHandle":"h1"}"#))
    let end = try Self.answers(load, Array(answer("{}").utf8), &output)
    #expect(end.count == 1)
    if case .ended(_, let messages) = end[0] { #expect(messages == 1) } else { Issue.record() }
  }

  @Test func aFailedEntryOfABatchEndsTheRun() throws {
    let target = WireTarget("x", LoadAddress(host: "127.0.0.1", port: 1))
    func read(_ body: String) throws -> [LoadAnswer] {
      let load = HTTPLoad(.send, target, queue: "q", body: 1, batch: 10)
      var output = LoadOutput()
      load.begin(&output)
      let text = "HTTP/1.1 200 OK\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
      return try Self.answers(load, Array(text.utf8), &output)
    }
    #expect(try read(#"{"Failed":[],"Successful":[{"Id":"0"}]}"#).count == 1)
    #expect(throws: LoadError.self) { try read(#"{"Failed": [{"Id":"0"}],"Successful":[]}"#) }
  }

  /// Messages that come, made of the bodies that were sent.
  private typealias Change = (_ bodies: [String]) -> [(id: String, body: String)]

  /// Sends two messages of a group, then takes what `change` made of the answer that has them.
  private static func received(_ change: Change) throws {
    let workload = Workload(
      kind: .groups, producers: 1, consumers: 1, batch: 2, body: 40, seconds: 1, warmUp: 0,
      rate: nil, groups: 1, messages: 1000, durability: .synced)
    let check = WireCheck(workload)
    func load(_ part: HTTPLoad.Part, _ groups: GroupNumbers?) -> HTTPLoad {
      let target = WireTarget("x", LoadAddress(host: "127.0.0.1", port: 1))
      return HTTPLoad(part, target, queue: "q", body: 40, batch: 2, check: check, groups: groups)
    }
    func answer(_ list: String, _ entries: [String]) -> [UInt8] {
      let body = "{\"\(list)\":[\(entries.joined(separator: ","))]}"
      let head = "HTTP/1.1 200 OK\r\nContent-Length: \(body.utf8.count)\r\n\r\n"
      return Array((head + body).utf8)
    }
    func texts(_ name: StaticString, _ bytes: [UInt8]) -> [String] {
      bytes.withUnsafeBytes { bytes in
        HTTPLoad.values(of: name, in: bytes).map { bytes.text($0) }
      }
    }
    let sender = load(.send, GroupNumbers(0, workload))
    var output = LoadOutput()
    sender.begin(at: 1, &output)
    #expect(Set(texts("\"MessageGroupId\"", output.bytes)).count == 1)
    #expect(Set(texts("\"MessageDeduplicationId\"", output.bytes)).count == 2)
    let bodies = texts("\"MessageBody\"", output.bytes)
    #expect(bodies.map(\.utf8.count) == [40, 40])
    let sent = answer("Successful", [#"{"MessageId":"a"}"#, #"{"MessageId":"b"}"#])
    #expect(try answers(sender, sent, &output).last == .ended(sent.count, messages: 2))
    let taker = load(.take, nil)
    taker.begin(at: 2, &output)
    let came = change(bodies).map {
      #"{"MessageId":"\#($0.id)","ReceiptHandle":"h","Body":"\#($0.body)"}"#
    }
    _ = try answers(taker, answer("Messages", came), &output)
    try check.sent.check(received: check.received)
  }

  @Test func whatComesIsComparedWithWhatWasSent() throws {
    try Self.received { [("a", $0[0]), ("b", $0[1])] }
    let changes: [(Change, String)] = [
      ({ [("a", $0[0])] }, "2 messages were acknowledged and 1 received"),
      ({ [("a", $0[0]), ("a", $0[1])] }, "the sums of their numbers"),
      ({ [("b", $0[1]), ("a", $0[0])] }, "message 1 came where 0 was due"),
      ({ [("a", $0[0]), ("b", $0[0])] }, "message 0 came where 1 was due"),
      ({ [("a", $0[0]), ("b", $0[1] + "x")] }, "came as 41"),
      ({ [("a", $0[0]), ("b", $0[1].dropLast() + "_")] }, "is another"),
      ({ [("a", $0[0]), ("b", "g" + $0[1].dropFirst())] }, "is another"),
      ({ [("a", $0[0]), ("b", "f" + $0[1].dropFirst())] }, "before it was sent"),
    ]
    for (change, words) in changes {
      let failure = #expect(throws: BenchFailure.self) { try Self.received(change) }
      #expect(failure?.description.contains(words) == true, "\(words)")
    }
  }

  /// A connection that asks to be closed after each answer.
  private final class ClosedEachTime: LoadProtocol {
    let reconnects = true
    private(set) var closes = false
    private let request: [UInt8]

    init(_ request: [UInt8]) { self.request = request }

    func connected(_ output: inout LoadOutput) -> Bool {
      closes = false
      return true
    }
    func begin(_ output: inout LoadOutput) { output.put(request) }
    func read(_ input: UnsafeRawBufferPointer, _ output: inout LoadOutput) throws -> LoadAnswer {
      guard let answer = try HTTPAnswer(input) else { return .partial }
      closes = true
      return .ended(answer.body.upperBound, messages: 1)
    }
  }

  @Test func aConnectionThatIsMadeAgainWhileIdleRepeatsNothing() async throws {
    try await ServerFixture.run { fixture in
      let target = WireTarget("x", LoadAddress(host: "127.0.0.1", port: fixture.port))
      try await ServerFixture.onThread {
        let queue = try target.makeQueue("q")
        let request = target.request(
          "SendMessage", #"{"QueueUrl":"\#(queue)","MessageBody":"x"}"#)
        let measured = try LoadLoop.run(
          [ClosedEachTime(request)], to: target.address, LoadPlan(seconds: 0.2, rate: 50))
        #expect(measured.count == 10)
        #expect(try target.count(in: queue) == 10)
      }
    }
  }

  @Test func redisAnswersEndWhereTheyEnd() throws {
    try Self.endsOnce("$3\r\n1-0\r\n", messages: 1) {
      RedisLoad(.work, "q", Self.send, Self.body)
    }
    try Self.endsOnce(
      "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n$3\r\n1-0\r\n$3\r\n1-1\r\n$3\r\n1-2\r\n",
      messages: 3
    ) { RedisLoad(.work, "q", Self.sends, Self.body) }
    try Self.endsOnce(
      "$3\r\n1-0\r\n*1\r\n*2\r\n$1\r\nq\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\nb\r\n$1\r\nx\r\n"
        + "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n:1\r\n",
      messages: 1
    ) { RedisLoad(.work, "q", Self.cycle, Self.body) }
    var output = LoadOutput()
    #expect(throws: LoadError.self) {
      try Self.answers(
        RedisLoad(.work, "q", Self.send, Self.body), Array("-OOM no\r\n".utf8), &output)
    }
  }

  @Test func beanstalkdAnswersEndWhereTheyEnd() throws {
    try Self.endsOnce("USING q\r\nWATCHING 2\r\n", messages: 0) {
      BeanstalkLoad(.work, "q", Self.send, Self.body)
    }
    let load = BeanstalkLoad(.work, "q", Self.cycle, Self.body)
    var output = LoadOutput()
    load.begin(&output)
    let text = "INSERTED 7\r\nTIMED_OUT\r\nRESERVED 7 1\r\nx\r\nDELETED\r\n"
    let answers = try Self.answers(load, Array(text.utf8), &output)
    #expect(answers.last == .ended(9, messages: 1))
    #expect(String(decoding: output.bytes, as: UTF8.self).hasSuffix("delete 7\r\n"))
    load.begin(&output)
    #expect(throws: LoadError.self) {
      try Self.answers(load, Array("DRAINING\r\n".utf8), &output)
    }
  }

  @Test func natsAnswersEndWhereTheyEnd() throws {
    try Self.endsOnce("INFO {}\r\nPING\r\nPONG\r\n", messages: 0) {
      NATSLoad(.work, "q", Self.send, Self.body)
    }
    let load = NATSLoad(.work, "q", Self.cycle, Self.body)
    var output = LoadOutput()
    load.begin(&output)
    let text =
      "MSG i 1 9\r\n{\"seq\":1}\r\nMSG q 1 $JS.ACK.q.c.1 1\r\nx\r\nMSG i 1 0\r\n\r\n"
    let answers = try Self.answers(load, Array(text.utf8), &output)
    #expect(answers.last == .ended(13, messages: 1))
    #expect(String(decoding: output.bytes, as: UTF8.self).contains("PUB $JS.ACK.q.c.1 _INBOX."))
    load.begin(&output)
    #expect(throws: LoadError.self) {
      try Self.answers(load, Array("MSG i 1 12\r\n{\"error\":{}}\r\n".utf8), &output)
    }
  }

  @Test func postgresRowsAreReadUpToReady() throws {
    func message(_ type: Character, _ body: [UInt8]) -> [UInt8] {
      var bytes = Array(String(type).utf8)
      bytes.putBig(Int32(body.count + 4))
      return bytes + body
    }
    let load = PostgresLoad(.work, "q", Self.cycle, Self.body)
    var output = LoadOutput()
    let ready = message("Z", [0x49])
    // The greeting: logged in, then prepared.
    let greeting = message("R", [0, 0, 0, 0]) + ready + message("1", []) + ready
    #expect(try Self.answers(load, greeting, &output).last == .ended(11, messages: 0))
    load.begin(&output)
    let row = message("D", [0, 2, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 1, 0x78])
    let setting = message("D", [0, 1, 0, 0, 0, 3, 0x6f, 0x66, 0x66])
    let inserted = message("C", [0]) + ready
    let received = setting + message("C", [0]) + row + message("C", [0]) + ready
    _ = try Self.answers(load, inserted, &output)
    _ = try Self.answers(load, received, &output)
    #expect(output.bytes.suffix(30).contains(2))
    #expect(try Self.answers(load, ready, &output).last == .ended(6, messages: 1))
    load.begin(&output)
    #expect(throws: LoadError.self) {
      try Self.answers(load, message("E", Array("SERROR".utf8)), &output)
    }
  }

  @Test func confirmsOfRabbitMQMayComeSinglyOrTogether() throws {
    for confirms in [[(UInt64(3), UInt8(1))], [(2, 0), (1, 0), (3, 0)], [(1, 0), (3, 1)]] {
      let load = AMQPLoad(.work, "q", Self.sends, Self.body)
      var output = LoadOutput()
      load.begin(&output)
      var bytes: [UInt8] = []
      for (tag, isMultiple) in confirms {
        var arguments: [UInt8] = []
        arguments.putBig(tag)
        bytes += AMQPLoad.method(60, 80, arguments + [isMultiple])
      }
      let answers = try Self.answers(load, bytes, &output)
      #expect(answers.count == confirms.count)
      #expect(answers.last == .ended(21, messages: 3))
    }
    let load = AMQPLoad(.work, "q", Self.sends, Self.body)
    var output = LoadOutput()
    #expect(throws: LoadError.self) {
      try Self.answers(load, AMQPLoad.method(20, 40, [1, 0x94, 2, 0x6e, 0x6f]), &output)
    }
  }

  @Test func roundsAreDueByTheirScheduleHoweverLateTheyBegin() {
    var schedule = LoadPlan.Schedule(from: 1000, rate: 1e7)
    #expect(schedule.take(at: 999) == nil)
    #expect(schedule.take(at: 1000) == 1000)
    #expect(schedule.take(at: 1099) == nil)
    // A stall: what was due meanwhile is due when it was.
    #expect((0..<4).map { _ in schedule.take(at: 1350) } == [1100, 1200, 1300, nil])
    #expect(schedule.next == 1400)
    #expect(schedule.begun == 4)
  }

  @Test func figuresAreGroupedAndMediansAreInTheMiddle() {
    #expect(PeersReport.grouped(0) == "0")
    #expect(PeersReport.grouped(999.6) == "1,000")
    #expect(PeersReport.grouped(1_234_567) == "1,234,567")
    #expect(PeersReport.median([1, 2, 9]) == 2)
    #expect(PeersReport.median([1, 3]) == 2)
  }
}
