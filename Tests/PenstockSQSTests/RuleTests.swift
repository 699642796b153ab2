// SPDX-License-Identifier: Apache-2.0
import Foundation
import Penstock
import PenstockSQS
import PenstockTesting
import Testing

// Rules of the API whose times are minutes and days, with a clock that is told. The others are
// tested over HTTP. Docs/conformance.md has all rules and their tests.

/// The service over a store on a simulated disk, in simulated time.
private struct Timed {
  let clock: SimulatedClock
  let fixture: ServiceFixture

  static func run(_ body: (Timed) async throws -> Void) async throws {
    let clock = SimulatedClock(wallMilliseconds: 1_700_000_000_000)
    var options = StoreOptions()
    options.segmentSize = 256 << 10
    let store = try await Store.open(
      at: "/store", options: options,
      environment: StoreEnvironment(
        fileSystem: SimulatedFileSystem(), clock: clock, random: StableRandom(seed: 1)))
    try await body(
      Timed(clock: clock, fixture: ServiceFixture(store: store, service: SQSService(store: store))))
    #expect(store.brokenInvariant == nil)
    try await store.close()
  }

  func pass(_ duration: Duration) {
    clock.advance(by: duration)
    fixture.store.timeHasMoved()
  }

  /// Calls an action with members of which those of the queue `name` come first.
  @discardableResult
  func call(_ action: String, _ name: String, _ members: String = "") async -> Answer {
    await fixture.call(
      action,
      #"{"QueueUrl":"\#(ServiceFixture.base)\#(name)"\#(members.isEmpty ? "" : ",\(members)")}"#)
  }

  func create(_ name: String, _ attributes: String = "") async {
    let kind = name.hasSuffix(".fifo") ? #""FifoQueue":"true""# : ""
    let all = [kind, attributes].filter { !$0.isEmpty }.joined(separator: ",")
    let answer = await fixture.call(
      "CreateQueue", #"{"QueueName":"\#(name)","Attributes":{\#(all)}}"#)
    #expect(answer.status == 200, "\(answer.text)")
  }

  @discardableResult
  func send(_ name: String, _ body: String, _ more: String = "") async -> Answer {
    let answer = await call(
      "SendMessage", name, #""MessageBody":"\#(body)"\#(more.isEmpty ? "" : ",\(more)")"#)
    #expect(answer.status == 200, "\(answer.text)")
    return answer
  }

  func receive(_ name: String, _ more: String = "") async -> [[String: Any]] {
    await call(
      "ReceiveMessage", name,
      #""MaxNumberOfMessages":10,"MessageSystemAttributeNames":["All"]"#
        + (more.isEmpty ? "" : ",\(more)")
    ).objects("Messages")
  }

  func bodies(_ name: String, _ more: String = "") async -> [String] {
    await receive(name, more).compactMap { $0["Body"] as? String }
  }

  /// Visible, in flight and delayed messages.
  func counts(_ name: String) async -> [String?] {
    let answer = await call("GetQueueAttributes", name, #""AttributeNames":["All"]"#)
    let values = answer.object["Attributes"] as? [String: String] ?? [:]
    return ["", "NotVisible", "Delayed"].map { values["ApproximateNumberOfMessages" + $0] }
  }

  /// Waits until the store has removed what is over: it does so on a thread of its own.
  func until(
    _ name: String, _ expected: [String], _ location: SourceLocation = #_sourceLocation
  ) async {
    let end = ContinuousClock.now + .seconds(30)
    while await counts(name) != expected {
      guard ContinuousClock.now < end else {
        let found = await counts(name)
        Issue.record("\(found), not \(expected)", sourceLocation: location)
        return
      }
      await Task.yield()
    }
  }

  func set(_ name: String, _ attributes: String) async {
    let answer = await call("SetQueueAttributes", name, #""Attributes":{\#(attributes)}"#)
    #expect(answer.status == 200, "\(answer.text)")
  }

  func deadLetters(of name: String, at dead: String) async {
    let arn = "arn:aws:sqs:us-east-1:000000000000:" + dead
    await set(
      name,
      #""RedrivePolicy":"{\"deadLetterTargetArn\":\"\#(arn)\",\"maxReceiveCount\":1}""#)
  }
}

@Suite struct RulesOfTime {
  @Test("3.4 a shorter retention expires messages at once, in whatever state")
  func aShorterRetentionExpiresAtOnce() async throws {
    try await Timed.run { timed in
      await timed.create("q")
      for body in ["leased", "visible"] { await timed.send("q", body) }
      await timed.send("q", "delayed", #""DelaySeconds":900"#)
      let first = await timed.call("ReceiveMessage", "q", #""VisibilityTimeout":40000"#)
      #expect(first.objects("Messages").count == 1)
      timed.pass(.seconds(61))
      await timed.send("q", "young")
      #expect(await timed.counts("q") == ["2", "1", "1"])
      await timed.set("q", #""MessageRetentionPeriod":"60""#)
      await timed.until("q", ["1", "0", "0"])
      #expect(await timed.bodies("q") == ["young"])
    }
  }

  @Test("3.4 a delay of a FIFO queue counts from the send", arguments: [60, 900])
  func aDelayOfAFIFOQueueCountsFromTheSend(delay: Int) async throws {
    try await Timed.run { timed in
      await timed.create("q.fifo", #""DelaySeconds":"300""#)
      await timed.send("q.fifo", "m", #""MessageGroupId":"g","MessageDeduplicationId":"d""#)
      timed.pass(.seconds(59))
      await timed.set("q.fifo", #""DelaySeconds":"\#(delay)""#)
      #expect(await timed.counts("q.fifo") == ["0", "0", "1"])
      timed.pass(.seconds(delay - 60))
      #expect(await timed.counts("q.fifo") == ["0", "0", "1"])
      timed.pass(.seconds(1))
      #expect(await timed.bodies("q.fifo") == ["m"])
    }
  }

  @Test(
    "4.5 a handle of a message that has expired deletes with success", arguments: ["", ".fifo"])
  func aHandleOfAnExpiredMessageDeletes(suffix: String) async throws {
    try await Timed.run { timed in
      let queue = "q" + suffix
      let ids = suffix.isEmpty ? "" : #""MessageGroupId":"g","MessageDeduplicationId":"d""#
      await timed.create(queue, #""MessageRetentionPeriod":"60""#)
      await timed.send(queue, "m", ids)
      let handle = try #require(await timed.receive(queue).first?["ReceiptHandle"] as? String)
      timed.pass(.seconds(61))
      await timed.until(queue, ["0", "0", "0"])
      let deleted = await timed.call("DeleteMessage", queue, #""ReceiptHandle":"\#(handle)""#)
      #expect(deleted.status == 200)
      let changed = await timed.call(
        "ChangeMessageVisibility", queue,
        #""ReceiptHandle":"\#(handle)","VisibilityTimeout":1"#)
      #expect(
        changed.message == "Value \(handle) for parameter ReceiptHandle is invalid. Reason: "
          + "Message does not exist or is not available for visibility timeout change.")
    }
  }

  @Test("4.5 FIFO: a handle works until its extended deadline")
  func aHandleWorksUntilItsExtendedDeadline() async throws {
    try await Timed.run { timed in
      await timed.create("q.fifo")
      for body in ["1", "2"] {
        await timed.send(
          "q.fifo", body, #""MessageGroupId":"g","MessageDeduplicationId":"\#(body)""#)
      }
      let handles = await timed.receive("q.fifo").compactMap { $0["ReceiptHandle"] as? String }
      try #require(handles.count == 2)
      func call(_ action: String, _ more: String = "") async -> Answer {
        await timed.call(action, "q.fifo", #""ReceiptHandle":"\#(handles[0])"\#(more)"#)
      }
      #expect(await call("ChangeMessageVisibility", #","VisibilityTimeout":60"#).status == 200)
      timed.pass(.milliseconds(59_999))
      #expect(await timed.counts("q.fifo") == ["1", "1", "0"])
      #expect(await call("DeleteMessage").status == 200)
      // The other's deadline was not extended.
      let expired = await timed.call(
        "DeleteMessage", "q.fifo", #""ReceiptHandle":"\#(handles[1])""#)
      #expect(
        expired.message == "Value \(handles[1]) for parameter ReceiptHandle is invalid. Reason: "
          + "The receipt handle has expired.")
    }
  }

  @Test("4.6 twelve hours in all, from each receive on")
  func twelveHoursInAll() async throws {
    try await Timed.run { timed in
      await timed.create("q")
      await timed.send("q", "m")
      let handle = try #require(
        await timed.receive("q", #""VisibilityTimeout":43200"#).first?["ReceiptHandle"] as? String)
      func change(_ seconds: Int) async -> Int {
        await timed.call(
          "ChangeMessageVisibility", "q",
          #""ReceiptHandle":"\#(handle)","VisibilityTimeout":\#(seconds)"#
        ).status
      }
      timed.pass(.seconds(10_000))
      #expect(await change(33_201) == 400)
      #expect(await change(33_200) == 200)
      timed.pass(.seconds(33_199))
      #expect(await timed.counts("q") == ["0", "1", "0"])
      timed.pass(.seconds(1))
      // The next receive has twelve hours of its own.
      #expect(await timed.bodies("q", #""VisibilityTimeout":43200"#) == ["m"])
    }
  }

  @Test("4.8 polls are served in the order in which they came")
  func pollsAreServedInTheirOrder() async throws {
    try await Timed.run { timed in
      await timed.create("q")
      let body = #"{"QueueUrl":"\#(ServiceFixture.base)q","WaitTimeSeconds":20}"#
      let polls = (0..<3).map { _ in
        let (answers, continuation) = AsyncStream.makeStream(of: [UInt8].self)
        _ = timed.fixture.service.handle(
          SQSRequest(
            method: "POST", target: "/",
            headers: TestHeaders(values: [
              "content-type": "application/x-amz-json-1.0",
              "x-amz-target": "AmazonSQS.ReceiveMessage",
            ]), body: Array(body.utf8))
        ) { continuation.yield($0.response().body) }
        return answers
      }
      for (number, answers) in polls.enumerated() {
        await timed.send("q", "number \(number)")
        for await answer in answers {
          #expect(String(decoding: answer, as: UTF8.self).contains(#""number \#(number)""#))
          break
        }
      }
    }
  }

  @Test("4.10 a message expires in whatever state, and never early")
  func aMessageExpiresInWhateverState() async throws {
    try await Timed.run { timed in
      await timed.create("q", #""MessageRetentionPeriod":"600""#)
      for body in ["leased", "returned", "visible"] { await timed.send("q", body) }
      await timed.send("q", "delayed", #""DelaySeconds":900"#)
      let one = #""VisibilityTimeout":43200,"MaxNumberOfMessages":1"#
      #expect(await timed.call("ReceiveMessage", "q", one).objects("Messages").count == 1)
      _ = await timed.call("ReceiveMessage", "q", #""VisibilityTimeout":0"#)
      timed.pass(.milliseconds(599_999))
      #expect(await timed.counts("q") == ["2", "1", "1"])
      timed.pass(.seconds(1))
      #expect(await timed.receive("q").isEmpty)
      await timed.until("q", ["0", "0", "0"])
    }
  }

  @Test("5.4 the window is five minutes from the first send")
  func theWindowIsFiveMinutes() async throws {
    try await Timed.run { timed in
      await timed.create("q.fifo")
      func send() async -> String? {
        await timed.send("q.fifo", "m", #""MessageGroupId":"g","MessageDeduplicationId":"d""#)[
          "MessageId"]
      }
      let first = await send()
      timed.pass(.seconds(200))
      #expect(await send() == first)
      timed.pass(.milliseconds(99_999))
      #expect(await send() == first)
      // A repetition did not make it longer.
      timed.pass(.milliseconds(1))
      #expect(await send() != first)
    }
  }

  @Test("5.6 after five minutes an attempt is a new one")
  func anAttemptLivesFiveMinutes() async throws {
    try await Timed.run { timed in
      await timed.create("q.fifo")
      for body in ["1", "2"] {
        await timed.send(
          "q.fifo", body, #""MessageGroupId":"\#(body)","MessageDeduplicationId":"\#(body)""#)
      }
      let attempt = #""ReceiveRequestAttemptId":"a","VisibilityTimeout":1000"#
      let one = #","MaxNumberOfMessages":1"#
      func receive() async -> [String] {
        await timed.call("ReceiveMessage", "q.fifo", attempt + one).objects("Messages")
          .compactMap { $0["Body"] as? String }
      }
      #expect(await receive() == ["1"])
      timed.pass(.milliseconds(299_999))
      #expect(await receive() == ["1"])
      timed.pass(.milliseconds(1))
      #expect(await receive() == ["2"])
    }
  }

  @Test("6.4 the age of dead letters: that of the send, in FIFO queues that of the move")
  func theAgeOfDeadLetters() async throws {
    for suffix in ["", ".fifo"] {
      try await Timed.run { timed in
        let ids = suffix.isEmpty ? "" : #""MessageGroupId":"g","MessageDeduplicationId":"d""#
        for queue in ["q", "dead"] {
          await timed.create(queue + suffix, #""MessageRetentionPeriod":"1000""#)
        }
        await timed.deadLetters(of: "q" + suffix, at: "dead" + suffix)
        await timed.send("q" + suffix, "m", ids)
        timed.pass(.seconds(600))
        for _ in 0..<2 { _ = await timed.receive("q" + suffix, #""VisibilityTimeout":0"#) }
        #expect(await timed.counts("dead" + suffix) == ["1", "0", "0"])
        timed.pass(.seconds(399))
        #expect(await timed.counts("dead" + suffix) == ["1", "0", "0"])
        timed.pass(.seconds(1))
        let left = suffix.isEmpty ? "0" : "1"
        await timed.until("dead" + suffix, [left, "0", "0"])
        timed.pass(.seconds(599))
        #expect(await timed.counts("dead" + suffix) == [left, "0", "0"])
        timed.pass(.seconds(1))
        await timed.until("dead" + suffix, ["0", "0", "0"])
      }
    }
  }
}
