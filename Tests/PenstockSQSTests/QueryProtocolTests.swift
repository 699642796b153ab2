// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockSQS
import Testing

/// Forms in, XML out: the bytes of whole answers, with request ids and what differs from run to run
/// cut out.
@Suite struct QueryProtocol {
  private func form(
    _ fixture: ServiceFixture, _ body: String, path: String = "/", method: String = "POST"
  ) async -> Answer {
    var headers = ["host": "localhost:9324"]
    if method == "POST" {
      headers["content-type"] = "application/x-www-form-urlencoded; charset=utf-8"
    }
    return await fixture.send(
      SQSRequest(
        method: method, target: method == "POST" ? path : "\(path)?\(body)",
        headers: TestHeaders(values: headers), body: method == "POST" ? Array(body.utf8) : []))
  }

  /// The answer without its frame, which is checked.
  private func result(_ answer: Answer, of action: String) -> String {
    let start =
      "<?xml version=\"1.0\"?><\(action)Response "
      + "xmlns=\"http://queue.amazonaws.com/doc/2012-11-05/\">"
    let id = answer.headers["x-amzn-requestid"] ?? ""
    let end =
      "<ResponseMetadata><RequestId>\(id)</RequestId></ResponseMetadata></\(action)Response>"
    #expect(answer.status == 200 && answer.headers["content-type"] == "text/xml")
    #expect(answer.text.hasPrefix(start) && answer.text.hasSuffix(end), "\(answer.text)")
    return String(answer.text.dropFirst(start.count).dropLast(end.count))
  }

  private func error(_ answer: Answer) -> String {
    let start =
      "<?xml version=\"1.0\"?><ErrorResponse "
      + "xmlns=\"http://queue.amazonaws.com/doc/2012-11-05/\"><Error>"
    let id = answer.headers["x-amzn-requestid"] ?? ""
    let end = "<Detail/></Error><RequestId>\(id)</RequestId></ErrorResponse>"
    #expect(answer.headers["content-type"] == "text/xml")
    #expect(answer.text.hasPrefix(start) && answer.text.hasSuffix(end), "\(answer.text)")
    return "\(answer.status) " + String(answer.text.dropFirst(start.count).dropLast(end.count))
  }

  private func text(_ element: String, in answer: Answer) -> String {
    let parts = answer.text.split(separator: "<\(element)>", maxSplits: 1)
    guard parts.count == 2, let end = parts[1].firstIndex(of: "<") else { return "" }
    return String(parts[1][..<end])
  }

  @Test func messageGoesThereAndBack() async throws {
    try await ServiceFixture.runWithQueue { fixture in
      let sent = await form(
        fixture,
        "Action=SendMessage&Version=2012-11-05&MessageBody=a+%26%20%3Cb%3E%22%0D%0A%C3%BC"
          + "&MessageAttribute.1.Name=k&MessageAttribute.1.Value.DataType=String"
          + "&MessageAttribute.1.Value.StringValue=x",
        path: "/000000000000/q")
      #expect(
        result(sent, of: "SendMessage")
          == "<SendMessageResult><MessageId>\(text("MessageId", in: sent))</MessageId>"
          + "<MD5OfMessageBody>3bcc3fc93255d06131a060e8bb476b91</MD5OfMessageBody>"
          + "<MD5OfMessageAttributes>a45daa70926828a2f0a1db3418e6feb4</MD5OfMessageAttributes>"
          + "</SendMessageResult>")
      let received = await form(
        fixture,
        "Action=ReceiveMessage&AttributeName.1=ApproximateReceiveCount"
          + "&MessageAttributeName.1=All&QueueUrl=q")
      #expect(
        result(received, of: "ReceiveMessage")
          == "<ReceiveMessageResult><Message><MessageId>\(text("MessageId", in: sent))</MessageId>"
          + "<ReceiptHandle>\(text("ReceiptHandle", in: received))</ReceiptHandle>"
          + "<MD5OfBody>3bcc3fc93255d06131a060e8bb476b91</MD5OfBody>"
          + "<Body>a &amp; &lt;b&gt;&quot;&#xD;\nü</Body>"
          + "<Attribute><Name>ApproximateReceiveCount</Name><Value>1</Value></Attribute>"
          + "<MD5OfMessageAttributes>a45daa70926828a2f0a1db3418e6feb4</MD5OfMessageAttributes>"
          + "<MessageAttribute><Name>k</Name><Value><StringValue>x</StringValue>"
          + "<DataType>String</DataType></Value></MessageAttribute></Message>"
          + "</ReceiveMessageResult>")
    }
  }

  @Test func emptyResultsAreEmptyElements() async throws {
    try await ServiceFixture.runWithQueue { fixture in
      let queue = "/000000000000/q"
      let empty = await form(fixture, "Action=ReceiveMessage", path: queue, method: "GET")
      #expect(result(empty, of: "ReceiveMessage") == "<ReceiveMessageResult/>")
      let none = await form(fixture, "Action=ListQueues&QueueNamePrefix=x")
      #expect(result(none, of: "ListQueues") == "<ListQueuesResult/>")
      let purged = await form(fixture, "Action=PurgeQueue", path: queue)
      #expect(result(purged, of: "PurgeQueue") == "")
    }
  }

  @Test func listsAreFlat() async throws {
    try await ServiceFixture.runWithQueue { fixture in
      let base = "http://localhost:9324/000000000000/"
      let made = await form(
        fixture, "Action=CreateQueue&QueueName=r&Attribute.1.Name=DelaySeconds&Attribute.1.Value=7")
      #expect(
        result(made, of: "CreateQueue")
          == "<CreateQueueResult><QueueUrl>\(base)r</QueueUrl></CreateQueueResult>")
      let listed = await form(fixture, "Action=ListQueues")
      #expect(
        result(listed, of: "ListQueues")
          == "<ListQueuesResult><QueueUrl>\(base)q</QueueUrl><QueueUrl>\(base)r</QueueUrl>"
          + "</ListQueuesResult>")
      let attributes = await form(
        fixture, "Action=GetQueueAttributes&AttributeName=DelaySeconds&QueueUrl=r")
      #expect(
        result(attributes, of: "GetQueueAttributes")
          == "<GetQueueAttributesResult><Attribute><Name>DelaySeconds</Name><Value>7</Value>"
          + "</Attribute></GetQueueAttributesResult>")
      let batch = await form(
        fixture,
        "Action=DeleteMessageBatch&DeleteMessageBatchRequestEntry.2.Id=b"
          + "&DeleteMessageBatchRequestEntry.1.Id=a"
          + "&DeleteMessageBatchRequestEntry.1.ReceiptHandle=x"
          + "&DeleteMessageBatchRequestEntry.2.ReceiptHandle=y", path: "/000000000000/q")
      #expect(
        result(batch, of: "DeleteMessageBatch")
          == "<DeleteMessageBatchResult>"
          + [("a", "x"), ("b", "y")].map { id, handle in
            "<BatchResultErrorEntry><Id>\(id)</Id><SenderFault>true</SenderFault>"
              + "<Code>ReceiptHandleIsInvalid</Code><Message>The input receipt handle &quot;"
              + "\(handle)&quot; is not a valid receipt handle.</Message></BatchResultErrorEntry>"
          }.joined() + "</DeleteMessageBatchResult>")
    }
  }

  @Test func namesOfMembersServeAsWell() async throws {
    try await ServiceFixture.run { fixture in
      _ = await form(
        fixture,
        "Action=CreateQueue&QueueName=q&Attributes.1.Name=DelaySeconds"
          + "&Attributes.1.Value=7")
      let sent = await form(
        fixture,
        "Action=SendMessageBatch&QueueUrl=q&Entries.1.Id=a&Entries.1.MessageBody=m"
          + "&Entries.1.MessageAttributes.1.Name=k&Entries.1.MessageAttributes.1.Value.DataType="
          + "Binary&Entries.1.MessageAttributes.1.Value.BinaryValue=AAH%2F")
      #expect(result(sent, of: "SendMessageBatch").contains("<SendMessageBatchResultEntry><Id>a<"))
      #expect(sent.text.contains("<MD5OfMessageAttributes>"))
      let attributes = await form(
        fixture, "Action=GetQueueAttributes&AttributeNames.1=DelaySeconds&QueueUrl=q")
      #expect(attributes.text.contains("<Value>7</Value>"))
    }
  }

  @Test(arguments: [
    (
      "Action=Nonsense", "/", "GET",
      "400 <Type>Sender</Type><Code>InvalidAction</Code><Message>The"
        + " action Nonsense is not valid for this endpoint.</Message>"
    ),
    (
      "Action=ListQueues", "/000000000000/q", "GET",
      "400 <Type>Sender</Type><Code>InvalidAction</Code><Message>The action ListQueues is not valid"
        + " for this endpoint.</Message>"
    ),
    (
      "Action=SendMessage&MessageBody=m", "/", "POST",
      "404 <Type>Sender</Type><Code>InvalidAddress</Code><Message>The address"
        + " http://localhost:9324/ is not valid for this endpoint.</Message>"
    ),
    (
      "Action=SendMessage&MessageBody=m&QueueUrl=nothing", "/000000000000/q", "POST",
      "400 <Type>Sender</Type><Code>AWS.SimpleQueueService.NonExistentQueue</Code><Message>The"
        + " specified queue does not exist for this wsdl version.</Message>"
    ),
    (
      "Action=SendMessage", "/000000000000/q", "POST",
      "400 <Type>Sender</Type><Code>MissingParameter</Code><Message>The request must contain the"
        + " parameter MessageBody.</Message>"
    ),
    (
      "Action=ReceiveMessage&MaxNumberOfMessages=a", "/000000000000/q", "POST",
      "400 <Type>Sender</Type><Code>InvalidParameterValue</Code><Message>Value a for parameter"
        + " MaxNumberOfMessages is invalid. Reason: Must be an integer.</Message>"
    ),
    (
      "Action=SendMessage&MessageBody=%zz", "/000000000000/q", "POST",
      "400 <Type>Sender</Type><Code>MalformedInput</Code><Message>A field of the form is not"
        + " percent-encoded UTF-8</Message>"
    ),
  ])
  func errorsAreInXML(_ body: String, _ path: String, _ method: String, _ expected: String)
    async throws
  {
    try await ServiceFixture.runWithQueue { fixture in
      let answer = await form(fixture, body, path: path, method: method)
      #expect(error(answer) == expected)
    }
  }

  @Test func pathsOfAllStylesNameTheQueue() async throws {
    try await ServiceFixture.runWithQueue { fixture in
      for path in ["/000000000000/q", "/queue/us-east-1/000000000000/q", "/000000000000/q/"] {
        let answer = await form(fixture, "Action=PurgeQueue", path: path)
        #expect(answer.status == 200, "\(path)")
      }
      let over = await form(fixture, "Action=PurgeQueue&QueueUrl=q", path: "/000000000000/none")
      #expect(over.status == 200)
    }
  }

  @Test func formsAreBounded() async throws {
    try await ServiceFixture.runWithQueue { fixture in
      let many = await form(
        fixture, String(repeating: "a=1&", count: 200_000) + "Action=ListQueues")
      #expect(many.status == 400 && many.text.contains("MalformedInput"))
      let deep = await form(
        fixture, "Action=ListQueues&" + String(repeating: "a.", count: 100_000) + "=1")
      #expect(deep.status == 200)
      let strange = await form(
        fixture,
        "Action=SendMessageBatch&QueueUrl=q&SendMessageBatchRequestEntry.x.Id=1"
          + "&SendMessageBatchRequestEntry.1.Id.1=2&MessageAttribute=3")
      #expect(strange.status == 400)
    }
  }
}
