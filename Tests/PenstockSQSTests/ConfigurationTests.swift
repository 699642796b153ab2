// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockSQS
import Testing

/// What the operator may choose: limits, and how queue URLs look.
@Suite struct Configurations {
  private func run(
    _ set: (inout SQSConfiguration) -> Void, _ body: (ServiceFixture) async throws -> Void
  ) async throws {
    var configuration = SQSConfiguration()
    set(&configuration)
    try await ServiceFixture.run { fixture in
      let service = SQSService(store: fixture.store, configuration: configuration)
      try await body(ServiceFixture(store: fixture.store, service: service))
    }
  }

  @Test func extendedLimitsAreThoseOfTheStore() async throws {
    try await run({ $0.limits = .extended }) { fixture in
      let made = await fixture.call(
        "CreateQueue",
        #"{"QueueName":"q","Attributes":{"VisibilityTimeout":"100000","DelaySeconds":"0","#
          + #""MessageRetentionPeriod":"31536000","MaximumMessageSize":"2000000"}}"#)
      #expect(made.status == 200, "\(made.text)")
      let entries = (0..<200).map { #"{"Id":"\#($0)","MessageBody":"m\#($0)"}"# }
      let sent = await fixture.call(
        "SendMessageBatch", #"{"QueueUrl":"$Q","Entries":[\#(entries.joined(separator: ","))]}"#)
      #expect(sent.objects("Successful").count == 200)
      let received = await fixture.receive(
        #""MaxNumberOfMessages":150,"VisibilityTimeout":50000"#)
      #expect(received.count == 150)
      let handle = received.first?["ReceiptHandle"] as? String ?? ""
      let changed = await fixture.call(
        "ChangeMessageVisibility",
        #"{"QueueUrl":"$Q","ReceiptHandle":"\#(handle)","VisibilityTimeout":90000}"#)
      #expect(changed.status == 200, "\(changed.text)")
      let large = String(repeating: "x", count: 1_900_000)
      let send = await fixture.call(
        "SendMessage", #"{"QueueUrl":"$Q","MessageBody":"\#(large)","DelaySeconds":1000}"#)
      #expect(send.status == 200)
      let over = await fixture.call(
        "ReceiveMessage", #"{"QueueUrl":"$Q","MaxNumberOfMessages":1001}"#)
      #expect(
        over.message == "Value 1001 for parameter MaxNumberOfMessages is invalid. Reason: Must be "
          + "between 1 and 1000, if provided.")
    }
  }

  @Test func legacyLimitsAreThoseOf256KiB() async throws {
    try await run({ $0.limits = .legacy }) { fixture in
      _ = await fixture.call("CreateQueue", #"{"QueueName":"q"}"#)
      let again = await fixture.call("CreateQueue", #"{"QueueName":"q"}"#)
      #expect(again.status == 200)
      func send(_ count: Int) async -> Answer {
        await fixture.call(
          "SendMessage",
          #"{"QueueUrl":"$Q","MessageBody":"\#(String(repeating: "x", count: count))"}"#)
      }
      #expect(await send(262_144).status == 200)
      #expect(
        await send(262_145).message
          == "One or more parameters are invalid. Reason: Message must be shorter than 262144 "
          + "bytes.")
      let large = await fixture.call(
        "SetQueueAttributes",
        #"{"QueueUrl":"$Q","Attributes":{"MaximumMessageSize":"262145"}}"#)
      #expect(large.message == "Invalid value for the parameter MaximumMessageSize.")
    }
  }

  @Test(arguments: [
    (SQSConfiguration.QueueURLs.standard, "http://localhost:9324/000000000000/q"),
    (.path, "http://localhost:9324/queue/us-east-1/000000000000/q"),
    (.domain, "http://us-east-1.queue.localhost:9324/000000000000/q"),
  ])
  func queueURLsOfEachStyleAreUnderstood(
    _ style: SQSConfiguration.QueueURLs, _ url: String
  ) async throws {
    try await run({ $0.queueURLs = style }) { fixture in
      let made = await fixture.call("CreateQueue", #"{"QueueName":"q"}"#)
      #expect(made["QueueUrl"] == url)
      let purged = await fixture.call("PurgeQueue", #"{"QueueUrl":"\#(url)"}"#)
      #expect(purged.status == 200)
    }
  }
}
